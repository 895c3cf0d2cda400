// The conversation with 100,000 messages.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { browser, tab, until } from './kit.mjs';
import { start } from './made-up.mjs';

const COUNT = 100_000;
let chrome;
let made;
before(async () => {
  chrome = await browser();
  made = await start(COUNT);
});
after(async () => {
  await chrome?.close();
  made?.stop();
});

async function opened(hash = '') {
  const it = await tab(chrome);
  await it.page.goto(made.url + hash);
  await it.page.getByText(`${made.total().toLocaleString('en')} messages`).waitFor({ timeout: 60_000 });
  await it.page.locator('.row').first().waitFor();
  return it;
}
const inDocument = (page) => page.locator('.row').count();
const tally = (page) => page.locator('.tally').textContent();

test('only the rows in sight are in the document, at both ends', async () => {
  const { page, wrong, close } = await opened('#/conversation?detail=everything');
  const last = made.total();
  await page.locator(`#m${last}`).waitFor();
  assert.ok((await inDocument(page)) < 100);
  await page.locator('.rows').focus();
  await page.keyboard.press('Home');
  await page.locator('#m1[aria-selected="true"]').waitFor();
  assert.equal(await page.locator('#m1').getAttribute('aria-setsize'), String(last));
  assert.ok((await inDocument(page)) < 100);
  await page.keyboard.press('End');
  await page.locator(`#m${last}[aria-selected="true"]`).waitFor();
  assert.deepEqual(wrong, []);
  await close();
});

test('filters and search find among all, and a link keeps them', async () => {
  const { page, wrong, close } = await opened('#/conversation?detail=everything');
  await page.getByLabel('Search').fill('t9999"');
  await until('one round is shown', async () => /^2 of/.test(await tally(page)));
  await page.getByLabel('Search').fill('');
  await page.getByLabel('Person').fill('@bob:localhost');
  await page.getByLabel('Service').fill('slack');
  await page.getByRole('radio', { name: 'Wire' }).check();
  await until('the filters are in the address', async () => /person=%40bob%3Alocalhost.*service=slack|service=slack/.test(page.url()) && /detail=wire/.test(page.url()));
  await until('the transactions to slack that carry a message of bob', async () => (await tally(page)).startsWith('667 of'));
  const shown = await tally(page);
  const again = await tab(chrome);
  await again.page.goto(page.url());
  await until('the same are shown', async () => (await again.page.locator('.tally').textContent().catch(() => '')) === shown, 60_000);
  await again.page.getByRole('group').getByRole('button', { name: 'Clear filters' }).click();
  await until('all requests are shown', async () => (await again.page.locator('.tally').textContent()).startsWith('30,000 of'));
  assert.deepEqual([...wrong, ...again.wrong], []);
  await again.close();
  await close();
});

test('a pause holds back what comes, a step shows one, and following goes on', async () => {
  const { page, wrong, close } = await opened('#/conversation?detail=everything');
  const last = made.total();
  await page.locator('main').click({ position: { x: 5, y: 60 } });
  await page.keyboard.press('p');
  made.more(30);
  await page.getByRole('button', { name: 'Resume · 30 new' }).waitFor();
  assert.equal(await page.locator(`#m${last + 1}`).count(), 0);
  await page.keyboard.press('.');
  await page.locator(`#m${last + 1}`).waitFor();
  assert.equal(await page.locator(`#m${last + 2}`).count(), 0);
  await page.keyboard.press('p');
  await page.locator(`#m${last + 30}`).waitFor();
  // Scrolling back ends the following.
  await page.locator('.rows').hover();
  await page.mouse.wheel(0, -3000);
  await page.locator('button[aria-pressed="false"]', { hasText: 'Follow' }).waitFor();
  made.more(30);
  await page.getByText(`${(last + 60).toLocaleString('en')} messages`).waitFor();
  assert.equal(await page.locator(`#m${last + 60}`).count(), 0);
  await page.getByRole('button', { name: 'Follow' }).click();
  await page.locator(`#m${last + 60}`).waitFor();
  assert.deepEqual(wrong, []);
  await close();
});
