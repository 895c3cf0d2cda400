// Every view, in both colour schemes and at both widths: accessible, without an error, and not wider than the window.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';
import { browser, tab } from './kit.mjs';
import { start } from './made-up.mjs';

const VIEWS = {
  conversation: ['#/conversation', '.row'],
  'a message': ['#/conversation?m=103', '.panel h2'],
  'a transaction': ['#/conversation?m=108', '.panel .explanations'],
  'nothing passes': ['#/conversation?q=nothing-has-this', 'text=No message passes the filters'],
  services: ['#/services', '.card'],
  'one service': ['#/services?service=slack', '.card'],
  fate: ['#/explain?kind=to_device&service=irc&to_device=5', '.steps'],
  autopsy: ['#/explain?kind=autopsy&event=$x&user=@irc_bob:localhost', '.device'],
  inboxes: ['#/inboxes', 'table'],
  'device lists': ['#/tracked', 'table'],
  keys: ['#/keys', 'table'],
  actors: ['#/actors', 'table'],
  clock: ['#/clock', '.time'],
};

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
let chrome;
let made;
before(async () => {
  chrome = await browser();
  made = await start(300);
});
after(async () => {
  await chrome?.close();
  made?.stop();
});

async function violations(page) {
  await page.evaluate(axe);
  // A colour that is still changing has the contrast of neither of its ends. An animation that its element's removal ends is refused.
  await page.evaluate(() => Promise.allSettled(document.getAnimations().map((animation) => animation.finished)));
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return found.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(' ')).slice(0, 4).join('; ')}`);
}

for (const colorScheme of ['light', 'dark']) {
  for (const width of [900, 1600]) {
    test(`each view is accessible: ${colorScheme}, ${width} pixels`, async () => {
      const { page, wrong, close } = await tab(chrome, { viewport: { width, height: 800 }, colorScheme });
      const problems = [];
      for (const [name, [hash, ready]] of Object.entries(VIEWS)) {
        await page.goto(made.url + hash);
        await page.locator(ready).first().waitFor();
        problems.push(...(await violations(page)).map((text) => `${name}: ${text}`));
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        if (wide > 0) problems.push(`${name}: ${wide} pixels too wide`);
        const cut = await page.evaluate(() => document.querySelector('.top').scrollWidth - document.querySelector('.top').clientWidth);
        if (cut > 0) problems.push(`${name}: the navigation is ${cut} pixels too wide`);
      }
      await page.keyboard.press('?');
      await page.locator('dialog[open]').waitFor();
      problems.push(...(await violations(page)).map((text) => `keys: ${text}`));
      assert.deepEqual([...problems, ...wrong], []);
      await close();
    });
  }
}

test('without messages the page says how to begin, and it is accessible', async () => {
  const empty = await start(0, { services: () => [], appservices: () => [], inboxes: () => ({ items: [] }) });
  const { page, wrong, close } = await tab(chrome);
  for (const [hash, says] of [['', 'Nothing was sent yet'], ['#/services', 'No service is registered'], ['#/inboxes', 'No to-device message waits']]) {
    await page.goto(empty.url + hash);
    await page.getByRole('heading', { name: says }).waitFor();
    assert.deepEqual(await violations(page), []);
  }
  assert.deepEqual(wrong, []);
  await close();
  empty.stop();
});

test('the switch of the colours holds after the page is loaded again', async () => {
  const { page, close } = await tab(chrome, { colorScheme: 'light' });
  await page.goto(made.url);
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  await page.getByLabel('Colours').selectOption('dark');
  assert.notEqual(await ground(), light);
  await page.reload();
  await page.getByLabel('Colours').waitFor();
  assert.notEqual(await ground(), light);
  await page.getByLabel('Colours').selectOption('system');
  assert.equal(await ground(), light);
  await close();
});

test('a list of several pages is continued, and an answer with an error is shown', async () => {
  const rows = (from) => Array.from({ length: 3 }, (_, i) => ({ user: `@u${from + i}:localhost`, device: 'D', rows: 1 }));
  const paged = await start(0, {
    inboxes: (params) => (params.get('after') ? { items: rows(3) } : { items: rows(0), next: 'x' }),
  });
  const { page, close } = await tab(chrome);
  await page.goto(`${paged.url}#/inboxes`);
  await page.getByRole('button', { name: 'Show more' }).click();
  await page.getByText('@u5:localhost').waitFor();
  await page.getByLabel('Filter').fill('u4');
  assert.equal(await page.locator('tbody tr').count(), 1);
  await page.goto(`${paged.url}#/explain?kind=event&service=irc&event=$x`);
  await page.route('**/fate*', (route) => route.fulfill({ status: 404, contentType: 'application/json', body: '{"errcode":"M_NOT_FOUND","error":"there is no such event"}' }));
  await page.reload();
  await page.getByRole('alert').getByText('there is no such event (404)').waitFor();
  await close();
  paged.stop();
});
