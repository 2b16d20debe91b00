// What Node's HTTP server says about requests: a line of hex bytes in, a line of JSON out, in the form
// of http_node_tool.c. Each request has a connection of its own, half-closed after its last byte.
import http from 'node:http';
import net from 'node:net';
import readline from 'node:readline';

const latin1 = (s) => Buffer.from(s, 'latin1').toString('latin1');
const connections = new Map();

function message(request, body) {
	const fields = [];
	for (let i = 0; i < request.rawHeaders.length; i += 2)
		fields.push([latin1(request.rawHeaders[i]), latin1(request.rawHeaders[i + 1])]);
	let host = request.headers.host ?? '';
	let target = request.url;
	const absolute = /^https?:\/\/([^/?]*)(.*)$/is.exec(target);
	if (absolute)
		[, host, target] = absolute;
	return { method: request.method, target, host, version: request.httpVersion, fields, body: body.toString('latin1') };
}

function onRequest(request, response) {
	const state = connections.get(request.socket);
	const pieces = [];
	const slot = state.messages.length;
	state.messages.push(null);
	request.on('data', (piece) => pieces.push(piece));
	request.on('end', () => {
		state.messages[slot] = message(request, Buffer.concat(pieces));
		response.end();
	});
	request.on('error', () => {});
}

const server = http.createServer({ maxHeaderSize: 1024, keepAliveTimeout: 0, insecureHTTPParser: false }, onRequest);
server.on('checkExpectation', (request, response) => {
	connections.get(request.socket).refused = 'HPE_EXPECT';
	response.writeHead(417).end();
});
server.on('checkContinue', (request, response) => {
	response.writeContinue();
	onRequest(request, response);
});
server.on('connection', (socket) => connections.set(socket, { messages: [] }));
server.on('clientError', (error, socket) => {
	const state = connections.get(socket);
	state.refused ??= error.code ?? 'error';
	if (socket.writable)
		socket.end();
	else
		socket.destroy();
});

function ask(port, bytes) {
	return new Promise((resolve) => {
		let answer = '';
		const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true }, () => socket.end(bytes));
		socket.setEncoding('latin1');
		socket.on('data', (piece) => { answer += piece; });
		socket.on('error', () => {});
		socket.on('close', () => resolve(answer));
	});
}

await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const { port } = server.address();
for await (const line of readline.createInterface({ input: process.stdin })) {
	connections.clear();
	const answer = await ask(port, Buffer.from(line, 'hex'));
	const state = [...connections.values()][0] ?? { messages: [] };
	const messages = state.messages.filter((m) => m);
	// Node itself answers a missing Host, after its parser.
	const refused = state.refused ?? (/^HTTP\/1\.1 4/m.test(answer) ? 'HTTP_4xx' : undefined);
	const cut = refused === 'HPE_INVALID_EOF_STATE' || (!refused && messages.length < state.messages.length)
		|| (!refused && !messages.length);
	console.log(JSON.stringify({ verdict: cut ? 'cut' : refused ? 'refuse' : 'accept', reason: refused, messages }));
}
server.close();
server.closeAllConnections();
