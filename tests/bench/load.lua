-- Load for wrk: embeddings requests of about 1 KB.
--   wrk ... -s load.lua URL -- hit|miss base64|float SEED
-- hit: 1,000 texts, the same ones for each run; miss: a text that nobody asked for yet, each time.
local kind, encoding, seed
local prepared, counter, n = {}, 0, 0
local filler = string.rep("lorem ipsum dolor sit amet ", 40)

local function request_for(name)
	local text = name .. " " .. string.sub(filler, 1, 900)
	local body = '{"model":"text-embedding-3-small","encoding_format":"' .. encoding .. '","input":"' .. text .. '"}'
	return wrk.format("POST", "/v1/embeddings", {
		["Content-Type"] = "application/json",
		["Authorization"] = "Bearer sk-0123456789012345678901234567890123456789",
		["User-Agent"] = "OpenAI/JS 6.49.0",
		["Accept"] = "application/json",
		-- Varnish cannot take the hash of a body: its front would. Any name of the body does here.
		["X-Body-Hash"] = string.format("%-64s", encoding .. "-" .. string.gsub(name, " ", "-")):gsub(" ", "0"),
	}, body)
end

function init(args)
	kind, encoding, seed = args[1], args[2], args[3]
	if kind == "hit" then
		for i = 1, 1000 do
			prepared[i] = request_for("text number " .. i)
		end
	end
end

function request()
	counter = counter + 1
	if kind == "hit" then
		return prepared[(counter - 1) % 1000 + 1]
	end
	return request_for(seed .. " number " .. counter)
end

function done(summary, latency, requests)
	local e = summary.errors
	io.write(string.format('{"requests":%d,"us":%d,"p50":%d,"p90":%d,"p99":%d,"max":%d,"errors":%d}\n', summary.requests,
		summary.duration, latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max,
		e.connect + e.read + e.write + e.status + e.timeout))
end
