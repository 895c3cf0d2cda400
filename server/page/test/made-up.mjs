// A server with made-up answers of the development routes: more messages than a real one keeps, and states that take long to reach.
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';

const DIST = fileURLToPath(new URL('../dist', import.meta.url));
const TYPES = { html: 'text/html; charset=utf-8', js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml' };
const ROOM = '!UCqeTLuuFIKddwuhjU:localhost';

/** The messages of one round: a request of alice, what it causes, and the transaction. Ten messages. */
export function round(k, number, at) {
  const id = `$${String(k).padStart(4, '0')}Xsbg4erE0luU3G531oDvVKQPCKRAfIAH5wMsYqr4`;
  const user = k % 3 ? '@alice:localhost' : '@bob:localhost';
  const device = k % 3 ? 'ALICEDEVICE' : 'BOBDEVICE';
  const cause = `${k} PUT /_matrix/client/v3/sendToDevice/{event_type}/{txn_id}`;
  const service = k % 5 ? 'irc' : 'slack';
  const messages = { [`@${service}_bob:localhost`]: { GHOST: { algorithm: 'm.olm.v1.curve25519-aes-sha2', 'org.matrix.msgid': `m${k}`, sender_key: 'abc' } } };
  const path = `/_matrix/client/v3/sendToDevice/m.room.encrypted/t${k}`;
  const transaction = 1795916474130000 + k;
  const failed = k % 11 === 7;
  const body = { events: [], 'de.sorunome.msc2409.to_device': [{ type: 'm.room.encrypted', sender: user, to_user_id: `@${service}_bob:localhost`, to_device_id: 'GHOST', content: messages[`@${service}_bob:localhost`].GHOST }] };
  if (k % 4 === 0) body.events.push({ type: 'm.room.encrypted', event_id: id, room_id: ROOM, sender: user, origin_server_ts: at, content: { algorithm: 'm.megolm.v1.aes-sha2', session_id: 'S' } });
  const all = [
    { cause, from: 'client', to: 'http', what: 'Request', body: { method: 'PUT', path, user, device, body: { messages } } },
    { cause, from: 'http', to: 'accounts', what: 'DeviceSeen', body: { user, device, ip: '127.0.0.1' } },
    { cause, from: 'http', to: 'to_device_inbox', what: 'Deposit', body: { from: { user, device }, txn: `t${k}`, event_type: 'm.room.encrypted', messages } },
    { cause, from: 'to_device_inbox', to: 'store', what: 'Write', body: { inbox: 1, [`owed ${service} (to_device)`]: 1 } },
    { cause, from: 'wake', to: 'appservice_sender', what: 'WakeSender', body: { service } },
    { cause, from: 'http', to: 'client', what: 'Answer', body: { status: 200, micros: 640 + (k % 90), body: {} } },
    { from: 'appservice_sender', to: 'store', what: 'Write', body: { [`frozen ${service} ${transaction}`]: 1 } },
    { from: 'appservice_sender', to: 'service', what: 'Attempt', body: { service, transaction, attempt: failed ? 2 : 1, at, outcome: failed ? '502' : '200', body } },
    { from: 'appservice_sender', to: 'store', what: 'Write', body: { [`acknowledged ${service} ${transaction}`]: 1 } },
    { from: 'appservice_sender', to: 'to_device_inbox', what: 'Acknowledged', body: { service, up_to: k } },
  ];
  return all.map((m, i) => ({ number: number + i, at: at + i, ...m }));
}

/** Answers of the other routes; a test may replace members. */
export function answers() {
  const start = Date.now();
  return {
    clock: () => ({ now: Date.now(), frozen: false }),
    services: () => [
      {
        service: 'irc', url: 'http://127.0.0.1:29300', sender: 'waiting', next_retry_at: start + 60_000,
        frozen: { transaction: 1795916474130007, bytes: 48_213, holds: { event: 12, to_device: 3, device_list: 1 }, frozen_at: start - 9000 },
        attempts: [
          { transaction: 1795916474130006, attempt: 1, at: start - 12_000, outcome: '200', micros: 2310 },
          { transaction: 1795916474130007, attempt: 1, at: start - 8000, outcome: '502', micros: 1890 },
          { transaction: 1795916474130007, attempt: 2, at: start - 5000, outcome: 'the application service did not answer within 30 s', micros: 30_000_000 },
        ],
        owed: [{ kind: 'event', count: 1204, oldest_at: start - 9000 }, { kind: 'to_device', count: 37, oldest_at: start - 8000 }],
        ledger: [
          { kind: 'event', before: 3, owed: 4210, delivered: 3009, dropped: {}, waiting: 1204 },
          { kind: 'to_device', before: 0, owed: 140, delivered: 96, dropped: { device_deleted: 7 }, waiting: 37 },
        ],
        balanced: true,
        dialects: { service: 'irc', registration: ['org.matrix.msc3202', 'receive_ephemeral'], used: { path: { '/_matrix/client/v3': 41 }, token: { Authorization: 41 }, device: { 'org.matrix.msc3202.device_id': 12 } }, sent: { events: 3009, 'de.sorunome.msc2409.to_device': 96 } },
        faults: [{ id: 1, service: 'irc', endpoint: 'transactions', fault: { status: 502 }, times: 3, seed: 0, requests: 4, injected: 1 }],
      },
      { service: 'slack', url: null, sender: 'idle', frozen: null, attempts: [], next_retry_at: null, owed: [], ledger: [], balanced: true, faults: [] },
    ],
    appservices: () => [{ service: 'irc', state: 'waiting' }, { file: 'broken.yaml', why: 'as_token is missing', instead: 'it is ignored', kept: [] }],
    fate: () => ({
      what: 'm.room_key_request from @alice:localhost to @irc_bob:localhost on GHOST', service: 'irc', verdict: 'waiting',
      steps: [
        { says: 'irc decides over the device: the user is in its exclusive namespace.', rule: 'services::authority', link: 'asked-authority.md', clause: 'https://spec.matrix.org/v1.19/application-service-api/' },
        { says: 'The message waits behind transaction 1795916474130007, which is tried again in 4 s.', rule: 'appservice_sender::freeze', link: 'transactions.md', transaction: 1795916474130007, attempt: 2, at: start },
      ],
    }),
    autopsy: () => ({
      event: '$0001Xsbg4erE0luU3G531oDvVKQPCKRAfIAH5wMsYqr47tw', sender: '@alice:localhost', sender_device: 'ALICEDEVICE', session: 'TJ0s7sVtQLhTuMBh2QDXLZUYqpMTxUyvNHOqqVHKz8w', room: ROOM, at: start,
      devices: [
        {
          user: '@irc_bob:localhost', device: 'GHOST', known_keys: true, counts: { signed_curve25519: 49 }, claims: [{ at: start, by: '@alice:localhost', by_device: 'ALICEDEVICE', algorithm: 'signed_curve25519', got: 'one-time key' }],
          messages: [{ position: 1201, at: start, type: 'm.room.encrypted', decided_by: 'irc', transaction: 1795916474130006, acknowledged: true, deleted: false, attempts: 1 }], verdict: 'delivered',
          missing: 'Nothing is missing at the server: irc acknowledged it in transaction 1795916474130006. The server does not see what was in it; look for the Olm message in the log of the client or bridge.',
          steps: [{ says: '@alice:localhost claimed a one-time key of GHOST.', rule: 'a key is handed out once', link: 'claim.md', clause: 'https://spec.matrix.org/v1.19/client-server-api/#one-time-and-fallback-keys', at: start }],
        },
        {
          user: '@irc_bob:localhost', device: 'OLD', known_keys: true, counts: {}, claims: [], messages: [], verdict: 'never sent',
          missing: '@alice:localhost never sent OLD an encrypted message, as far as the history reaches: the room key was not shared with it.',
          steps: [{ says: '@alice:localhost never sent OLD an encrypted message.', rule: 'the room key travels to each device', link: 'primer.md' }],
        },
      ],
    }),
    inboxes: () => ({ items: [{ user: '@irc_bob:localhost', device: 'GHOST', rows: 37, oldest: 1187, oldest_at: start, decided_by: 'irc' }, { user: '@bob:localhost', device: 'BOBDEVICE', rows: 2, oldest: 1190, oldest_at: null }] }),
    tracked: () => ({ items: [{ service: 'irc', user: '@alice:localhost', rooms: [ROOM], shared: 1 }] }),
    keys: () => ({ items: [{ user: '@irc_bob:localhost', device: 'GHOST', one_time: { signed_curve25519: 49 }, fallback_used: { signed_curve25519: false } }] }),
    actors: () => ({ items: [{ name: 'rooms', mailbox: 0, handled: 41_201, slowest_micros: 8120, slowest: 'CreateRoom' }, { name: 'appservice_sender', mailbox: 1, handled: 1204, slowest_micros: 310, slowest: 'Resend', last_error: { at: start, what: 'Resend', error: 'the application service answered 502' } }] }),
  };
}

/** Starts it with so many messages; `more(n)` sends others to the pages that listen. */
export async function start(count, replaced = {}) {
  const all = [];
  const listening = new Set();
  const made = { ...answers(), ...replaced };
  const event = (m) => `id: ${m.number}\ndata: ${JSON.stringify(m)}\n\n`;
  let k = 0;
  const grow = (n) => {
    const begin = all.length;
    while (all.length - begin < n) all.push(...round(k++, all.length + 1, Date.now()).slice(0, n - (all.length - begin)));
    return all.slice(begin);
  };
  grow(count);
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, 'http://x');
    const name = url.pathname.replace('/_understudy/', '');
    if (name === 'live') {
      const after = Number(url.searchParams.get('after') ?? 0);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const hello = { version: '0.0.0', server_name: 'localhost', run: 1, oldest: 1, newest: all.length, clock: made.clock() };
      response.write(`event: hello\ndata: ${JSON.stringify(hello)}\n\n`);
      response.write(all.slice(after).map(event).join(''));
      listening.add(response);
      request.on('close', () => listening.delete(response));
      return;
    }
    if (made[name]) {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify(made[name](url.searchParams)));
      return;
    }
    const file = name === '' ? 'index.html' : name;
    const type = TYPES[file.split('.').pop()];
    const found = type && (await readFile(join(DIST, file)).catch(() => undefined));
    response.writeHead(found ? 200 : 404, { 'content-type': found ? type : 'application/json', 'content-security-policy': "default-src 'self'" });
    response.end(found ?? '{"errcode":"M_UNRECOGNIZED","error":"unknown endpoint"}');
  });
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  return {
    url: `http://127.0.0.1:${server.address().port}/_understudy/`,
    more(n) {
      const text = grow(n).map(event).join('');
      for (const response of listening) response.write(text);
    },
    total: () => all.length,
    stop() {
      for (const response of listening) response.destroy();
      server.closeAllConnections();
      server.close();
    },
  };
}
