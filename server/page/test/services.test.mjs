// Services, explanations and the clock of a real server with a real bridge.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { bridge, browser, ghostInRoom, server, tab, until } from './kit.mjs';

let chrome;
let at;
let irc;
let room;
before(async () => {
  chrome = await browser();
  at = await server();
  irc = await bridge(at);
  room = await ghostInRoom(at, irc);
});
after(async () => {
  await chrome?.close();
  await at?.stop();
  irc?.stop();
});

let sent = 0;
const say = (text) => at.client('PUT', `/rooms/${room}/send/m.room.message/say${sent++}`, { msgtype: 'm.text', body: text });
const state = async () => (await at.request('GET', '/_understudy/services'))[0];

test('a fault makes a transaction fail, a countdown runs, and a retry delivers it', async () => {
  const { page, wrong, close } = await tab(chrome);
  await page.goto(`${at.page}#/services`);
  const card = page.locator('.card');
  await card.getByText('idle').waitFor();
  await card.getByText('balanced').waitFor();
  const form = page.getByRole('form', { name: 'Add a fault to irc' });
  await form.getByLabel('Value').fill('503');
  await form.getByRole('button', { name: 'Add fault' }).click();
  await page.getByRole('list', { name: 'Faults of irc' }).getByText('transactions answers with status 503').waitFor();
  await say('fails at first');
  await card.getByText('waiting to retry').waitFor();
  // The first waits are short; in a longer one the countdown is read twice.
  const left = async () => Number((await card.getByRole('timer').textContent().catch(() => '')).match(/^in ([0-9.]+) s/)?.[1]);
  const first = await until('a longer wait', async () => (await left()) > 2.5 && left(), 40_000);
  await page.waitForTimeout(900);
  const second = await left();
  assert.ok(second < first && second > first - 2.5, `${first} s, then ${second} s`);
  await page.getByRole('region', { name: 'Attempts of irc' }).getByText('503').first().waitFor();
  await page.getByRole('region', { name: 'Queue of irc' }).getByText('event').waitFor();
  await card.getByText('balanced').waitFor();
  await card.getByRole('list', { name: 'Faults of irc' }).getByRole('button', { name: 'Off' }).click();
  await card.getByText('None: requests to the service are sent as they are.').waitFor();
  await card.getByRole('button', { name: 'Retry now' }).click();
  await card.getByText('idle').waitFor();
  await until('the event', () => irc.received.some((r) => r.body.includes('fails at first')));
  await card.getByText('None: everything that was sent is acknowledged.').waitFor();
  await card.getByText('balanced').waitFor();
  assert.deepEqual(wrong, []);
  await close();
});

test('the last transaction is sent again, the service is pinged and examined', async () => {
  const { page, wrong, close } = await tab(chrome);
  await page.goto(`${at.page}#/services`);
  const card = page.locator('.card');
  const before = irc.received.length;
  await card.getByRole('button', { name: 'Resend the last' }).click();
  await card.getByText(/Transaction \d+: 200/).waitFor();
  const again = irc.received[before];
  assert.ok(irc.received.slice(0, before).some((r) => r.path === again.path && r.body === again.body));
  await card.getByRole('button', { name: 'Ping' }).click();
  await card.getByText(/Answered after/).waitFor();
  assert.ok(irc.received.some((r) => r.path === '/_matrix/app/v1/ping'));
  await card.getByRole('button', { name: 'Doctor' }).click();
  await card.getByRole('list', { name: 'Findings of the doctor about irc' }).getByText('the service answers 200 to an unknown path').waitFor();
  assert.deepEqual(wrong, []);
  await close();
});

test('looking causes no messages that make the page look again', async () => {
  const { page, wrong, close } = await tab(chrome);
  let asked = 0;
  page.on('request', (request) => (asked += request.url().endsWith('/services') ? 1 : 0));
  await page.goto(`${at.page}#/services`);
  await page.locator('.card').waitFor();
  await page.waitForTimeout(1500);
  const before = asked;
  await page.waitForTimeout(2500);
  assert.equal(asked, before);
  await page.goto(`${at.page}#/conversation?detail=everything`);
  await page.locator('.row').first().waitFor();
  assert.equal(await page.locator('.row', { hasText: 'SenderStatuses' }).count(), 0);
  assert.deepEqual(wrong, []);
  await close();
});

test('a registration that cannot be read is shown with its reason', async () => {
  const { page, close } = await tab(chrome);
  await page.goto(`${at.page}#/services`);
  await writeFile(join(at.appservices, 'broken.yaml'), 'id: broken\n');
  await at.request('POST', '/_understudy/appservices/reload', {});
  await say('makes the page ask again');
  await page.getByRole('alert').getByText('broken.yaml').waitFor();
  await close();
});

test('one click leads from a transaction to what happened to its event', async () => {
  const { page, wrong, close } = await tab(chrome);
  const { event_id } = await say('explained');
  await page.goto(`${at.page}#/conversation?detail=wire`);
  await page.getByLabel('Search').fill('"explained"');
  await page.locator('.row', { hasText: '→ 200' }).last().click();
  await page.locator('.explanations a').first().click();
  const result = page.getByRole('region', { name: 'Result' });
  await result.getByText('delivered', { exact: true }).waitFor();
  assert.match(decodeURIComponent(page.url()), new RegExp(`event=\\${event_id}`));
  await result.getByText('spec-notes/src/transactions.md').first().waitFor();
  assert.ok((await result.locator('.steps li').count()) >= 2);
  // What nobody sent is said to be unknown.
  await page.getByLabel('Event', { exact: true }).fill('$nothing');
  await page.getByRole('button', { name: 'Explain' }).click();
  await result.getByText('unknown', { exact: true }).waitFor();
  assert.deepEqual(wrong, []);
  await close();
});

test('the autopsy says of each device what is missing', async () => {
  const { page, wrong, close } = await tab(chrome);
  const content = { algorithm: 'm.megolm.v1.aes-sha2', session_id: 'TheSession', device_id: 'ALICEDEVICE', sender_key: 'k', ciphertext: 'c' };
  await at.client('PUT', `/rooms/${room}/send/m.room.encrypted/e1`, content);
  await page.goto(`${at.page}#/explain?kind=autopsy`);
  await page.getByLabel('or Megolm session id').fill('TheSession');
  await page.getByLabel('Recipient').fill('@irc_bob:localhost');
  await page.getByRole('button', { name: 'Explain' }).click();
  const device = page.locator('.device', { hasText: 'GHOST' });
  await device.getByText('no keys', { exact: true }).waitFor();
  await device.getByText(/has uploaded no identity keys/).first().waitFor();
  assert.deepEqual(wrong, []);
  await close();
});

test('inboxes, device lists, keys and actors are listed, and a position leads to its explanation', async () => {
  const { page, wrong, close } = await tab(chrome);
  await at.client('PUT', '/sendToDevice/m.custom/waits', { messages: { '@bob:localhost': { BOBDEVICE: { waits: true } } } });
  await at.client('POST', '/keys/upload', {
    device_keys: {
      user_id: '@alice:localhost', device_id: 'ALICEDEVICE', algorithms: ['m.olm.v1.curve25519-aes-sha2', 'm.megolm.v1.aes-sha2'],
      keys: { 'curve25519:ALICEDEVICE': 'Y3VydmU', 'ed25519:ALICEDEVICE': 'ZWQ' }, signatures: {},
    },
    one_time_keys: { 'signed_curve25519:AAAA': { key: 'a2V5', signatures: { '@alice:localhost': { 'ed25519:ALICEDEVICE': 'c2ln' } } } },
  });
  for (const [hash, region, text] of [['inboxes', 'Inboxes', 'BOBDEVICE'], ['tracked', 'Device lists', '@alice:localhost'], ['keys', 'Keys', 'signed_curve25519'], ['actors', 'Actors', 'to_device_inbox']]) {
    await page.goto(`${at.page}#/${hash}`);
    await page.getByRole('region', { name: region }).getByText(text).first().waitFor();
  }
  await page.goto(`${at.page}#/inboxes`);
  await page.getByTitle('Explain the message at this position').first().click();
  await page.getByRole('region', { name: 'Result' }).getByText('not interesting', { exact: true }).waitFor();
  assert.deepEqual(wrong, []);
  await close();
});

test('the clock is frozen, advanced and runs on', async () => {
  const { page, wrong, close } = await tab(chrome);
  await page.goto(`${at.page}#/clock`);
  await page.getByText('running', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Freeze' }).click();
  await page.getByText('frozen', { exact: true }).waitFor();
  await page.getByText(/Clock frozen at/).waitFor();
  const { now } = await at.request('GET', '/_understudy/clock');
  await page.getByRole('button', { name: '1 hour' }).click();
  await until('an hour later', async () => (await at.request('GET', '/_understudy/clock')).now === now + 3_600_000);
  await page.getByLabel('Amount').fill('90');
  await page.getByRole('button', { name: 'Advance' }).click();
  await until('ninety seconds later', async () => (await at.request('GET', '/_understudy/clock')).now === now + 3_690_000);
  await page.getByRole('button', { name: 'Run' }).click();
  await page.getByText('running', { exact: true }).waitFor();
  // Another program freezes it; the page notices.
  await at.request('POST', '/_understudy/clock/freeze', {});
  await page.getByText(/Clock frozen at/).waitFor();
  await at.request('POST', '/_understudy/clock/run', {});
  assert.deepEqual(wrong, []);
  await close();
});
