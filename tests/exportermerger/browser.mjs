// A headless Chromium that a test drives: browser.mjs PLAYWRIGHT_CORE. One JSON command a line on stdin, one JSON answer
// a line on stdout: {"open": url, "width", "height", "scheme"}, {"eval": expression}, {"wait": expression, "ms"}, {"shot": file}.
// {"size": [width, height], "scheme"} changes the page that is open. "step" of a wait: run in the page every quarter of a second meanwhile.
// Answers: {"value"} or {"error"}. {"eval": …} and {"wait": …} run in the page. {"console": 1}: what was said there so far.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { chromium } = createRequire(import.meta.url)(process.argv[2]);
const browser = await chromium.launch({ executablePath: process.argv[3], args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
let page, said = [];

// Asked from outside: what waits inside the page is eval(), which its policy forbids.
async function until(expression, deadline, step) {
	for (let i = 0; ; i++) {
		const value = await page.evaluate(expression);
		if (value) return value;
		if (step && i % 5 === 0) await page.evaluate(step);
		if (Date.now() > deadline) throw new Error(`not in time: ${expression}`);
		await new Promise(done => setTimeout(done, 50));
	}
}
async function run(c) {
	if (c.open) {
		await page?.context().close();
		const context = await browser.newContext({ viewport: { width: c.width, height: c.height }, colorScheme: c.scheme });
		page = await context.newPage();
		page.on("console", m => ["error", "warning"].includes(m.type()) && said.push(m.text()));
		page.on("pageerror", e => said.push(String(e.stack)));
		page.on("request", r => new URL(r.url()).origin !== new URL(c.open).origin && !r.url().startsWith("data:") && said.push("asks " + r.url()));
		return (await page.goto(c.open)).status();
	}
	if (c.eval) return page.evaluate(c.eval);
	if (c.wait) return until(c.wait, Date.now() + (c.ms ?? 30000), c.step);
	if (c.size) {
		await page.setViewportSize({ width: c.size[0], height: c.size[1] });
		await page.emulateMedia({ colorScheme: c.scheme });
		return page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))");
	}
	if (c.shot) return (await page.screenshot({ path: c.shot, fullPage: true })).length;
	if (c.console) return said.splice(0);
	throw new Error("no such command");
}
for await (const line of createInterface({ input: process.stdin })) {
	let answer;
	try { answer = { value: (await run(JSON.parse(line))) ?? null }; } catch (e) { answer = { error: String(e.message) }; }
	process.stdout.write(JSON.stringify(answer) + "\n");
}
await browser.close();
