// Measures the page and prints the figures: the first paint from a real server, and following a conversation.
// A figure depends on the machine, so nothing is asserted here.
import { browser, server, tab } from './kit.mjs';
import { start } from './made-up.mjs';

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const chrome = await browser();

const at = await server();
const paints = [];
for (let i = 0; i < 11; i++) {
  const { page, close } = await tab(chrome);
  await page.goto(at.page);
  await page.locator('.top').waitFor();
  const paint = await page.waitForFunction(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime);
  paints.push(await paint.jsonValue());
  await close();
}
await at.stop();
console.log(`first contentful paint, median of 11 new tabs: ${median(paints).toFixed(0)} ms (worst ${Math.max(...paints).toFixed(0)} ms)`);

for (const count of [1000, 100_000]) {
  const made = await start(count);
  const { page, close } = await tab(chrome);
  const began = performance.now();
  await page.goto(`${made.url}#/conversation?detail=everything`);
  await page.locator(`#m${count}`).waitFor({ timeout: 120_000 });
  const opened = performance.now() - began;
  // While it follows: the time between frames, and whether each message was drawn.
  await page.evaluate(() => {
    window.frames_ = [];
    let last = performance.now();
    const frame = (now) => {
      window.frames_.push(now - last);
      last = now;
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    window.long_ = 0;
    new PerformanceObserver((list) => (window.long_ += list.getEntries().reduce((sum, e) => sum + e.duration, 0))).observe({ entryTypes: ['longtask'] });
  });
  const seconds = 5;
  const timer = setInterval(() => made.more(1), 1000 / 60);
  await new Promise((done) => setTimeout(done, seconds * 1000));
  clearInterval(timer);
  const sent = made.total() - count;
  await page.locator(`#m${made.total()}`).waitFor();
  const { frames, long } = await page.evaluate(() => ({ frames: window.frames_, long: window.long_ }));
  const slow = [...frames].sort((a, b) => b - a);
  console.log(`${count.toLocaleString('en')} messages: shown after ${opened.toFixed(0)} ms; following ${(sent / seconds).toFixed(0)} a second: ${(frames.length / seconds).toFixed(0)} frames a second, 99th percentile ${slow[Math.floor(frames.length / 100)].toFixed(0)} ms, long tasks ${long.toFixed(0)} ms in ${seconds} s`);
  await page.evaluate(() => (window.frames_.length = 0));
  await page.locator('.rows').evaluate(async (rows) => {
    for (let i = 0; i <= 120; i++) {
      rows.scrollTop = (rows.scrollHeight * i) / 120;
      await new Promise(requestAnimationFrame);
    }
  });
  const scrolled = await page.evaluate(() => window.frames_);
  console.log(`  scrolling through all in 120 frames: median ${median(scrolled).toFixed(1)} ms a frame, worst ${Math.max(...scrolled).toFixed(0)} ms`);
  const searched = await page.evaluate(async () => {
    const began = performance.now();
    location.hash = '#/conversation?detail=everything&q=t77"';
    while (!/^2 of/.test(document.querySelector('.tally').textContent)) await new Promise(requestAnimationFrame);
    return performance.now() - began;
  });
  console.log(`  a search through all: ${searched.toFixed(0)} ms`);
  await close();
  made.stop();
}
await chrome.close();
