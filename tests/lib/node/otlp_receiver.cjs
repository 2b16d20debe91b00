// A collector: takes OTLP/HTTP exports in JSON on the listening socket 3, and checks each against the
// published schema. Appends one JSON line an export to the file OTLP_OUT:
//   {"path", "headers", "status", "schema": null or what is wrong, "body"}
// POST /_mode {"status", "headers", "body", "hang"}: how exports are answered from now on.
"use strict";
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");

// Made by protobufjs from opentelemetry-proto. The package does not export it, but has it.
const { opentelemetry } = require(path.join(
	path.dirname(require.resolve("@opentelemetry/otlp-transformer/package.json")), "build/src/generated/root.js"));
const { trace, metrics } = opentelemetry.proto.collector;
const requests = {
	"/v1/traces": trace.v1.ExportTraceServiceRequest,
	"/v1/metrics": metrics.v1.ExportMetricsServiceRequest,
};

// What the schema does not know is lost on the way through the message; what has another type comes
// back different. (Ids are hex here; taken for base64 they come back as they were.)
function schemaError(type, json)
{
	try {
		const message = type.fromObject(json);
		const invalid = type.verify(message);
		if (invalid)
			return invalid;
		return firstDifference(json, type.toObject(message, { longs: String, bytes: String }), "");
	} catch (error) {
		return String(error);
	}
}

function firstDifference(sent, known, where)
{
	if (typeof sent !== "object" || sent === null)
		return Object.is(sent, known) ? null : `${where}: ${JSON.stringify(sent)} became ${JSON.stringify(known)}`;
	if (typeof known !== "object" || known === null || Array.isArray(sent) !== Array.isArray(known))
		return `${where}: not what the schema has`;
	for (const key of Object.keys(sent)) {
		const difference = firstDifference(sent[key], known[key], `${where}/${key}`);
		if (difference)
			return difference;
	}
	return null;
}

// What the text of the schema demands beyond the types.
function idError(json)
{
	for (const resource of json.resourceSpans ?? [])
		for (const scope of resource.scopeSpans)
			for (const span of scope.spans) {
				if (!/^[0-9a-f]{32}$/.test(span.traceId) || /^0+$/.test(span.traceId))
					return `bad traceId ${span.traceId}`;
				for (const id of [span.spanId, span.parentSpanId ?? "1".repeat(16), ...(span.links ?? []).map((l) => l.spanId)])
					if (!/^[0-9a-f]{16}$/.test(id) || /^0+$/.test(id))
						return `bad spanId ${id}`;
				if (BigInt(span.endTimeUnixNano) < BigInt(span.startTimeUnixNano))
					return "ends before it begins";
				if (!span.name)
					return "no name";
				const keys = (span.attributes ?? []).map((a) => a.key);
				if (new Set(keys).size !== keys.length)
					return `an attribute twice: ${keys}`;
			}
	return null;
}

let mode = {};

function answerExport(request, response, text)
{
	const status = mode.status ?? 200;
	let body = null, schema;
	try {
		body = JSON.parse(text);
		schema = schemaError(requests[request.url], body) ?? idError(body);
	} catch (error) {
		schema = String(error);
	}
	const line = JSON.stringify({ path: request.url, headers: request.headers, status, schema, body });
	fs.appendFileSync(process.env.OTLP_OUT, line + "\n");
	if (mode.hang)
		return;
	response.writeHead(status, { "Content-Type": "application/json", ...mode.headers });
	response.end(JSON.stringify(mode.body ?? {}));
}

const server = http.createServer((request, response) => {
	const parts = [];
	request.on("data", (part) => parts.push(part));
	request.on("end", () => {
		const text = Buffer.concat(parts).toString();
		if (request.url === "/_mode") {
			mode = JSON.parse(text);
			response.end();
		} else if (requests[request.url] && request.method === "POST" &&
			request.headers["content-type"] === "application/json") {
			answerExport(request, response, text);
		} else {
			response.writeHead(404).end();
		}
	});
});
server.listen({ fd: 3 }, () => console.error("ready"));
