// The conversation of a real server: what it shows, and that what the page copies works.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { UNDERSTUDY, bridge, browser, folder, ghostInRoom, run, server, tab, until } from './kit.mjs';

let chrome;
let at;
before(async () => {
  chrome = await browser();
  at = await server();
});
after(async () => {
  await chrome?.close();
  await at?.stop();
});

const row = (page, text) => page.locator('.row', { hasText: text }).last();
async function copied(page, label) {
  const button = page.locator('.panel').getByRole('button', { name: label });
  await button.click();
  await page.locator('.panel').getByText('Copied').waitFor();
  const text = await page.evaluate(() => navigator.clipboard.readText());
  await page.locator('.panel').getByRole('button', { name: label }).waitFor();
  return text;
}

test('the files of the page are cached by their tag, and load nothing of other origins', async () => {
  const redirected = await fetch(at.page.slice(0, -1), { redirect: 'manual' });
  assert.equal(redirected.status, 308);
  assert.equal(redirected.headers.get('location'), '/_understudy/');
  for (const name of ['', 'page.js', 'page.css', 'icon.svg']) {
    const first = await fetch(at.page + name);
    assert.equal(first.status, 200);
    assert.equal(first.headers.get('content-security-policy'), "default-src 'self'");
    assert.ok((await first.text()).length > 100);
    const again = await fetch(at.page + name, { headers: { 'If-None-Match': first.headers.get('etag') } });
    assert.equal(again.status, 304);
    assert.equal(await again.text(), '');
    const foreign = await fetch(at.page + name, { headers: { Origin: 'https://example.org' } });
    assert.equal(foreign.status, 403);
  }
});

test('the first command that the page offers works, and its request appears', async () => {
  const { page, wrong, close } = await tab(chrome);
  const elsewhere = [];
  page.on('request', (request) => new URL(request.url()).origin === at.base_url || elsewhere.push(request.url()));
  await page.goto(at.page);
  await page.getByRole('heading', { name: 'Nothing was sent yet' }).waitFor();
  const { code, out } = await run('bash', ['-c', await page.locator('.code-line pre').textContent()]);
  assert.equal(code, 0, out);
  assert.match(out, /access_token/);
  await row(page, 'POST /login').click();
  const panel = page.locator('.panel');
  await panel.getByText('server/src/routes/session.rs').waitFor();
  await panel.getByText('"alice-password"').waitFor({ state: 'hidden' });
  assert.doesNotMatch(await panel.textContent(), /alice-password/);
  assert.deepEqual([wrong, elsewhere], [[], []]);
  await close();
});

test('a request and a transaction are shown, and their commands run', async () => {
  const irc = await bridge(at);
  const room = await ghostInRoom(at, irc);
  const { page, wrong, close } = await tab(chrome);
  await page.goto(at.page);
  await page.locator('.row').first().waitFor();
  await at.client('PUT', `/rooms/${room}/send/m.room.message/1`, { msgtype: 'm.text', body: "it's alice" });
  await row(page, '/send/m.room.message/1').click();
  const curl = await copied(page, 'Copy as curl');
  assert.match(curl, /# TOKEN: the access token of @alice:localhost/);
  assert.doesNotMatch(curl, new RegExp(at.alice.access_token));
  const sent = await run('bash', ['-c', curl.replace('/1\'', '/2\'')], { TOKEN: at.alice.access_token });
  assert.match(sent.out, /"event_id":"\$/);
  await row(page, '/send/m.room.message/2').waitFor();

  // The transaction that carries the second event, byte for byte as the bridge got it.
  const got = await until('a transaction', () => irc.received.filter((r) => r.body.includes('it\'s alice')).at(1));
  const id = got.path.match(/transactions\/(\d+)/)[1];
  await row(page, `…${id.slice(-7)}`).click();
  await page.getByRole('tab', { name: 'Wire' }).click();
  const wire = await page.locator('.content pre').textContent();
  assert.equal(wire, `PUT /_matrix/app/v1/transactions/${id}\n\n${got.body}`);
  await page.locator('.panel').getByText(`${Buffer.byteLength(got.body)} bytes of body`).waitFor();
  const before = irc.received.length;
  const again = await run('bash', ['-c', await copied(page, 'Copy as curl')], { HS_TOKEN: irc.hs });
  assert.equal(again.code, 0, again.out);
  assert.deepEqual(irc.received[before], got);
  assert.deepEqual(wrong, []);
  await close();
  irc.stop();
});

test('copied steps are a scenario that passes', async (t) => {
  const irc = await bridge(at);
  const room = await ghostInRoom(at, irc);
  await at.client('PUT', `/rooms/${room}/send/m.room.message/s1`, { msgtype: 'm.text', body: 'step one' });
  await until('the event', () => irc.received.find((r) => r.body.includes('step one')));
  await at.client('PUT', '/sendToDevice/m.custom/s2', { messages: { '@irc_bob:localhost': { GHOST: { body: 'step two' } } } });
  await until('the message', () => irc.received.find((r) => r.body.includes('step two')));
  await at.client('PUT', `/rooms/${room}/state/m.room.topic/`, { topic: 'steps' });
  await at.client('GET', '/devices/NOTHING').catch(() => undefined);
  const { page, wrong, close } = await tab(chrome);
  await page.goto(`${at.page}#/conversation?detail=wire`);
  const steps = [];
  for (const text of ['/send/m.room.message/s1', 'one-event', 'sendToDevice/m.custom/s2', 'one-message', '/state/m.room.topic', 'GET /devices/NOTHING']) {
    if (text === 'one-event' || text === 'one-message') {
      const { path } = irc.received.find((r) => r.body.includes(text === 'one-event' ? 'step one' : 'step two'));
      await row(page, `…${path.match(/(\d{7})(\?|$)/)[1]}`).click();
    } else await row(page, text).click();
    steps.push(await copied(page, 'Copy as scenario step'));
  }
  const named = steps.join('').replaceAll(/!r\d+/g, '!r');
  assert.match(named, /- alice: "?says \\?"step one\\?" in !r/);
  assert.match(named, /- to_device:\n {4}by: alice\n {4}to: "@irc_bob"\n {4}device: GHOST/);
  const file = join(await folder(t), 'copied.yaml');
  await writeFile(file, `title: Steps that were copied from the page
people: {alice: {device: ALICEDEVICE}}
bridges: {irc: {}}
steps:
  - irc: registers ghost bob with device GHOST
  - alice: creates room !r, inviting @irc_bob
  - irc as bob: joins !r
  - irc: ignores what it was sent so far
${named.replaceAll(/^/gm, '  ')}`);
  const played = await run(UNDERSTUDY, ['scenario', 'run', file]);
  assert.equal(played.code, 0, `${played.out}\n${named}`);
  assert.deepEqual(wrong, []);
  await close();
  irc.stop();
});

test('the keyboard alone reaches everything', async () => {
  const { page, wrong, close } = await tab(chrome);
  await page.goto(at.page);
  await page.locator('.row').first().waitFor();
  await page.keyboard.press('/');
  await page.keyboard.type('createRoom');
  await page.locator('.row', { hasText: 'sendToDevice' }).first().waitFor({ state: 'detached' });
  await page.keyboard.press('Escape');
  // From the page on, tab reaches the list; arrows and Home choose messages in it.
  for (let i = 0; i < 20; i++) {
    await page.keyboard.press('Tab');
    if (await page.evaluate(() => document.activeElement.getAttribute('role') === 'listbox')) break;
  }
  await page.keyboard.press('Home');
  await page.keyboard.press('ArrowDown');
  await page.locator('.panel h2').waitFor();
  assert.match(page.url(), /q=createRoom.*m=\d+/);
  await page.keyboard.press('Escape');
  await page.locator('.panel').waitFor({ state: 'detached' });
  for (const [key, heading] of [['2', 'Services'], ['3', 'Explain'], ['4', 'Inboxes'], ['5', 'Device lists'], ['6', 'Keys'], ['7', 'Actors'], ['8', 'Clock'], ['1', 'Conversation']]) {
    await page.keyboard.press(key);
    await page.getByRole('heading', { level: 1, name: heading }).waitFor();
  }
  await page.keyboard.press('?');
  await page.locator('dialog[open]').waitFor();
  await page.keyboard.press('Escape');
  await page.locator('dialog').waitFor({ state: 'detached' });
  assert.deepEqual(wrong, []);
  await close();
});

test('a server that is gone is shown calmly, and the page goes on when it is back', async () => {
  const first = await server();
  const { page, wrong, close } = await tab(chrome);
  await page.goto(first.page);
  await page.getByText('Nothing was sent yet').waitFor();
  await first.client('GET', '/account/whoami');
  await row(page, 'GET /account/whoami').waitFor();
  await first.stop();
  await page.getByText('No answer. Trying again in').waitFor();
  await row(page, 'GET /account/whoami').waitFor();
  const second = await server(first.port);
  await page.locator('.status.live').waitFor({ timeout: 20_000 });
  await page.getByText('Nothing was sent yet').waitFor();
  await second.client('GET', '/devices');
  await row(page, 'GET /devices').waitFor();
  assert.equal(await page.locator('.row', { hasText: 'whoami' }).count(), 0);
  assert.deepEqual(wrong, []);
  await close();
  await second.stop();
});
