// Ask for embeddings with the OpenAI SDK: embed.mjs BASE_URL < requests, one JSON object
// {"input", "model", "options"} a line; prints one JSON line an answer:
// {"embeddings", "usage", "model", "cache"} or {"error", "status"}.
import OpenAI from "openai";
import { createInterface } from "node:readline";

const client = new OpenAI({ apiKey: "sk-sdk", baseURL: process.argv[2], maxRetries: 0 });

for await (const line of createInterface({ input: process.stdin })) {
	const { options, ...request } = JSON.parse(line);
	try {
		const { data, response } = await client.embeddings.create(request, options).withResponse();
		console.log(JSON.stringify({
			embeddings: data.data.map((item) => Array.from(item.embedding)),
			usage: data.usage,
			model: data.model,
			cache: response.headers.get("x-cache"),
		}));
	} catch (error) {
		console.log(JSON.stringify({ error: error.constructor.name, status: error.status, code: error.code, message: error.message }));
	}
}
