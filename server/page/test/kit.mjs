// A browser, a server of its own for each test file, and a bridge that answers over HTTP.
import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';
import { build } from 'esbuild';
import { chromium } from 'playwright-core';

export const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
export const UNDERSTUDY = process.env.UNDERSTUDY ?? join(ROOT, 'target/debug/understudy');
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

export function browser() {
  return chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
}

/** A tab, and what went wrong in it. A request that the test itself makes fail is not counted. */
export async function tab(of, options = {}) {
  const context = await of.newContext({ viewport: { width: 1600, height: 900 }, ...options });
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  const wrong = [];
  page.on('pageerror', (error) => wrong.push(String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error' && !/Failed to load resource|net::ERR/.test(message.text())) wrong.push(message.text());
  });
  return { page, wrong, close: () => context.close() };
}

/** The functions of a module of the page. */
export async function source(name) {
  const entry = fileURLToPath(new URL(`../src/${name}`, import.meta.url));
  const built = await build({ entryPoints: [entry], bundle: true, write: false, format: 'esm', platform: 'neutral', mainFields: ['module', 'main'] });
  return import(`data:text/javascript;base64,${Buffer.from(built.outputFiles[0].contents).toString('base64')}`);
}

/** Runs a program to its end. */
export function run(program, args, env = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { env: { ...process.env, ...env } });
    let out = '';
    child.stdout.on('data', (data) => (out += data));
    child.stderr.on('data', (data) => (out += data));
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, out }));
  });
}

/** A development server with a database in memory. */
export async function server(port = 0) {
  const child = spawn(UNDERSTUDY, ['dev', '--port', String(port), '--print-json', '--exit-with-parent', '--database', ':memory:']);
  let log = '';
  child.stderr.on('data', (data) => (log += data));
  const line = await new Promise((resolve, reject) => {
    let out = '';
    child.stdout.on('data', (data) => {
      out += data;
      if (out.includes('\n')) resolve(out);
    });
    child.on('error', reject);
    child.on('exit', (code) => reject(new Error(`the server ended with ${code}: ${log}`)));
  });
  const ready = JSON.parse(line.split('\n')[0]);
  const [alice, bob] = ready.users;
  const request = async (method, path, body, token = alice.access_token) => {
    const answer = await fetch(ready.base_url + path, {
      method, body: body === undefined ? undefined : JSON.stringify(body),
      headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
    });
    const value = await answer.json();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(value)}`);
    return value;
  };
  const client = (method, path, body, token) => request(method, `/_matrix/client/v3${path}`, body, token);
  return {
    ...ready, alice, bob, request, client,
    page: `${ready.base_url}/_understudy/`,
    port: Number(new URL(ready.base_url).port),
    stop: () => new Promise((done) => { child.removeAllListeners('exit'); child.on('exit', done); child.kill(); }),
  };
}

/** A bridge with the users `@irc_.*`, registered with a server. `status` is what it answers transactions with. */
export async function bridge(at, id = 'irc') {
  const self = { received: [], status: 200, as: `${id}-as-token-0123456789`, hs: `${id}-hs-token-0123456789` };
  const http = createServer((request, response) => {
    let body = '';
    request.on('data', (data) => (body += data));
    request.on('end', () => {
      self.received.push({ method: request.method, path: request.url, token: request.headers.authorization, body });
      const known = request.headers.authorization === `Bearer ${self.hs}`;
      response.writeHead(known ? self.status : 403, { 'content-type': 'application/json' });
      response.end('{}');
    });
  });
  await new Promise((ready) => http.listen(0, '127.0.0.1', ready));
  self.url = `http://127.0.0.1:${http.address().port}`;
  await writeFile(join(at.appservices, `${id}.yaml`), `id: ${id}
url: ${self.url}
as_token: ${self.as}
hs_token: ${self.hs}
sender_localpart: ${id}bot
rate_limited: false
receive_ephemeral: true
de.sorunome.msc2409.push_ephemeral: true
org.matrix.msc3202: true
namespaces:
  users: [{exclusive: true, regex: '@${id}_.*'}]
`);
  await at.request('POST', '/_understudy/appservices/reload', {});
  self.stop = () => { http.closeAllConnections(); http.close(); };
  return self;
}

/** A ghost with a device, in a room with alice; the bridge has been sent all of it. */
export async function ghostInRoom(at, irc) {
  const ghost = { type: 'm.login.application_service', username: 'irc_bob', device_id: 'GHOST' };
  await at.client('POST', '/register', ghost, irc.as).catch((error) => {
    if (!error.message.includes('M_USER_IN_USE')) throw error;
  });
  const { room_id } = await at.client('POST', '/createRoom', { invite: ['@irc_bob:localhost'] });
  await at.client('POST', `/join/${encodeURIComponent(room_id)}?user_id=@irc_bob:localhost`, {}, irc.as);
  const isJoin = (e) => e.room_id === room_id && e.state_key === '@irc_bob:localhost' && e.content.membership === 'join';
  await until('the join', () => irc.received.some((r) => r.path.includes('/transactions/') && JSON.parse(r.body).events.some(isJoin)));
  return room_id;
}

/** A folder that is removed after the test. */
export async function folder(test) {
  const path = await mkdtemp(join(tmpdir(), 'understudy-page-'));
  test.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

export async function until(what, condition, ms = 10_000) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`${what}: not within ${ms} ms`);
    await new Promise((again) => setTimeout(again, 50));
  }
}
