// What npm's Redis clients do with a server: node redis.mjs PORT CLIENTS [DATABASES]. Prints one line of JSON for each
// kind of client: {"client": "ioredis", "failures": [...]}. A cluster has one database; else three are used.
//
// A client of npm's redis costs node some 50 ms of CPU before it looks at its socket, whoever the server is: on a busy
// machine the fifth second of many of them is over before the first has seen that it is connected. Hence the timeout.
import { Redis } from 'ioredis';
import { createClient } from 'redis';

const [port, count, databases = 3] = process.argv.slice(2).map(Number);

// The same questions for all: call(...words) gives the reply.
async function ask(name, call, failures) {
	const expect = (what, got, want) => {
		if (JSON.stringify(got) !== JSON.stringify(want)) failures.push(`${name} ${what}: ${JSON.stringify(got)}`);
	};
	const key = (k) => `${name}:${k}`;
	const value = name + 'v'.repeat(5000);
	expect('SET', await call('SET', key('a'), value), 'OK');
	expect('GET', await call('GET', key('a')), value);
	const many = await Promise.all(Array.from({ length: 100 }, (_, i) => call(i % 2 ? 'ECHO' : 'INCR', i % 2 ? `${name}${i}` : key('n'))));
	expect('pipeline', many, Array.from({ length: 100 }, (_, i) => (i % 2 ? `${name}${i}` : i / 2 + 1)));
	expect('nil', await call('GET', key('none')), null);
	const error = await call('LPUSH', key('a'), 'x').catch((e) => e);
	if (!/WRONGTYPE/.test(error.message)) failures.push(`${name} error: ${error}`);
	const [pushed, popped] = await Promise.all([call('RPUSH', key('l'), 'x'), call('BLPOP', key('l'), '0')]);
	expect('RPUSH', pushed, 1);
	expect('BLPOP', popped, [key('l'), 'x']);
}

const kinds = {
	ioredis: async (i) => {
		const c = new Redis({ port, host: '127.0.0.1', db: i % databases, lazyConnect: true, connectTimeout: 30000, maxRetriesPerRequest: 1, connectionName: `io${i}` });
		c.on('error', () => {});
		await c.connect();
		return { call: (...w) => c.call(...w), multi: (k) => c.multi().set(k, '1').incr(k).exec().then((r) => r[1][1]),
			sub: (ch, f) => c.duplicate().subscribe === undefined ? null : subscribeIo(c, ch, f), publish: (ch, m) => c.publish(ch, m),
			close: () => c.disconnect() };
	},
	'redis RESP2': (i) => nodeRedis(i, 2),
	'redis RESP3': (i) => nodeRedis(i, 3),
};

async function subscribeIo(c, channel, onMessage) {
	const s = c.duplicate();
	s.on('message', (_, m) => onMessage(m));
	await s.subscribe(channel);
	return () => s.disconnect();
}

async function nodeRedis(i, RESP) {
	const c = createClient({ socket: { port, host: '127.0.0.1', reconnectStrategy: false, connectTimeout: 30000 }, RESP, database: i % databases, name: `n${i}` });
	c.on('error', () => {});
	await c.connect();
	return { call: (...w) => c.sendCommand(w.map(String)), multi: (k) => c.multi().set(k, '1').incr(k).exec().then((r) => r[1]),
		sub: async (ch, f) => { const s = c.duplicate(); s.on('error', () => {}); await s.connect(); await s.subscribe(ch, f); return () => s.destroy(); },
		publish: (ch, m) => c.publish(ch, m), close: () => c.destroy() };
}

for (const [kind, connect] of Object.entries(kinds)) {
	const failures = [];
	try {
		const clients = await Promise.all(Array.from({ length: count }, (_, i) => connect(i)));
		await Promise.all(clients.map((c, i) => ask(`${kind}${i}`, c.call, failures)));
		const results = await Promise.all(clients.map((c, i) => c.multi(`${kind}${i}:m`)));
		if (results.some((r) => r !== 2)) failures.push(`MULTI: ${results}`);
		let close;
		const heard = new Promise((resolve) => { close = clients[0].sub(`${kind}:channel`, resolve); });
		close = await close;
		await clients[1].publish(`${kind}:channel`, 'hello');
		if ((await heard) !== 'hello') failures.push('pub/sub');
		close();
		clients.forEach((c) => c.close());
	} catch (e) {
		failures.push(String(e.stack));
	}
	console.log(JSON.stringify({ client: kind, failures }));
}
process.exit(0);
