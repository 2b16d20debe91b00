// Drive a browser over CDP: chrome.mjs PLAYWRIGHT_CORE CDP_URL PAGE_URL SCREENSHOT. Prints one JSON line with
// what the page says and how large the picture is.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [core, cdp, url, file] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(core);
const browser = await chromium.connectOverCDP(cdp, { timeout: 20000 });
const context = browser.contexts()[0] ?? (await browser.newContext());
const page = await context.newPage();
const response = await page.goto(url, { timeout: 20000 });
const text = await page.evaluate(() => document.body.innerText);
await page.screenshot({ path: file });
await page.close();
const picture = readFileSync(file);
console.log(JSON.stringify({
	version: browser.version(),
	status: response.status(),
	text,
	png: picture.subarray(1, 4).toString() === "PNG",
	width: picture.readUInt32BE(16),
	height: picture.readUInt32BE(20),
}));
await browser.close();
