// A TLS server that speaks HTTP/2 alone, with one embedding for every input, and an HTTP proxy (CONNECT and plain) beside it.
//   node tls_openai.mjs CERT KEY   prints {"server":PORT,"proxy":PORT}, then one JSON line for each request it saw
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';

const [cert, key] = process.argv.slice(2).map((path) => fs.readFileSync(path));
const say = (object) => fs.writeSync(1, JSON.stringify(object) + '\n');
const sessions = new Map();

const server = http2.createSecureServer({ cert, key, allowHTTP1: false }, (request, response) => {
	let body = '';
	request.on('data', (data) => { body += data; });
	request.on('end', () => {
		const { input } = JSON.parse(body);
		const session = request.stream.session;
		if (!sessions.has(session)) sessions.set(session, sessions.size + 1);
		say({ http: request.httpVersion, path: request.url, inputs: input.length, connection: sessions.get(session) });
		response.setHeader('content-type', 'application/json');
		response.end(JSON.stringify({ object: 'list', model: 'h2', usage: { prompt_tokens: input.length, total_tokens: input.length },
			data: input.map((text, index) => ({ object: 'embedding', index, embedding: [1, 0.5, index] })) }));
	});
});

const proxy = http.createServer((request, response) => {
	say({ proxy: 'plain', url: request.url });
	const onward = http.request(request.url, { method: request.method, headers: request.headers }, (answer) => {
		response.writeHead(answer.statusCode, answer.headers);
		answer.pipe(response);
	});
	onward.on('error', () => response.destroy());
	request.pipe(onward);
});
proxy.on('connect', (request, socket, head) => {
	say({ proxy: 'connect', url: request.url });
	const [host, port] = request.url.split(':');
	const onward = net.connect(Number(port), host, () => {
		socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
		onward.write(head);
		onward.pipe(socket);
		socket.pipe(onward);
	});
	for (const s of [socket, onward]) s.on('error', () => { socket.destroy(); onward.destroy(); });
});

server.listen(0, '127.0.0.1', () => proxy.listen(0, '127.0.0.1', () => say({ server: server.address().port, proxy: proxy.address().port })));
