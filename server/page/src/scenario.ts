/** A recorded request or transaction as a step of a scenario (`spec-notes/src/scenarios.md`). */

import { bodyOf, shortPath, type Message } from './message';
import { isObject } from './json';
import { lines } from './yaml';
import type { Attempt, HttpAnswer, HttpRequest } from './types';

/** What the names of a scenario stand for. */
export interface Names {
  server: string;
  /** The rooms in the order in which they were seen. */
  rooms: string[];
}

const CLIENT_API = '/_matrix/client/v3';

/** A user of this server, or a room, as a scenario names it; any other text as it is. */
function named(text: string, names: Names): string {
  const end = `:${names.server}`;
  if (text.startsWith('@') && text.endsWith(end)) return text.slice(0, -end.length);
  const room = names.rooms.indexOf(text);
  return room >= 0 ? `!r${room + 1}` : text;
}

/** Values that differ in each run. */
const VARIES = new Set(['event_id', 'origin_server_ts', 'age', 'txn_id', 'transaction_id']);
const LEFT_OUT = new Set(['unsigned', 'org.matrix.msgid', 'age']);

/** A value with the names of the scenario. If it is expected, what differs in each run is `$any`. */
function translated(value: unknown, names: Names, expected: boolean): unknown {
  if (typeof value === 'string') {
    if (expected && /^\$[A-Za-z0-9_-]{43}$/.test(value)) return '$any';
    return named(value, names);
  }
  if (Array.isArray(value)) return value.map((item) => translated(item, names, expected));
  if (!isObject(value)) return value;
  const entries = Object.entries(value).filter(([key]) => !(expected && LEFT_OUT.has(key)));
  return Object.fromEntries(
    entries.map(([key, item]) => [named(key, names), expected && VARIES.has(key) ? '$any' : translated(item, names, expected)]),
  );
}

/** The actor of a request: `alice`, `irc`, `irc as bob/GHOST`. */
function by(request: HttpRequest, names: Names): string {
  const user = request.user ? named(request.user, names).replace(/^@/, '') : '';
  if (!request.service) return user || 'anonymous';
  const { service } = request;
  const device = request.device ? `/${request.device}` : '';
  if (!user || user === `${service}bot`) return service + device;
  const ghost = user.startsWith(`${service}_`) ? user.slice(service.length + 1) : `@${user}`;
  return `${service} as ${ghost}${device}`;
}

const MASQUERADING = /^(user_id|device_id|org\.matrix\.msc3202\.device_id|access_token)=/;

/** The path with the names of the scenario, below the client-server API or whole. */
function pathOf(request: HttpRequest, names: Names): string {
  const below = request.path.startsWith(`${CLIENT_API}/`) ? request.path.slice(CLIENT_API.length) : request.path;
  const segments = below.split('/').map((segment) => {
    const text = shortPath(segment);
    const name = named(text, names);
    return name !== text ? name : segment;
  });
  const kept = (request.query ?? '').split('&').filter((part) => part && !(request.service && MASQUERADING.test(part)) && !part.startsWith('access_token='));
  return segments.join('/') + (kept.length ? `?${kept.join('&')}` : '');
}

/** The step that the request is, with a sentence where the language has one. */
function requestStep(request: HttpRequest, answer: HttpAnswer | undefined, names: Names): unknown {
  const who = by(request, names);
  const path = pathOf(request, names);
  const body = isObject(request.body) ? (translated(request.body, names, false) as Record<string, unknown>) : {};
  const well = !answer || answer.status < 300;
  const parts = path.split('/').slice(1).map(shortPath);
  if (well && request.method === 'PUT' && parts[0] === 'sendToDevice' && parts.length === 3) {
    const messages = Object.entries(isObject(body.messages) ? body.messages : {});
    const devices = messages.flatMap(([to, of]) => Object.entries(isObject(of) ? of : {}).map(([device, content]) => ({ to, device, content })));
    if (devices.length === 1) return { to_device: { by: who, to: devices[0]!.to, device: devices[0]!.device, type: parts[1], content: devices[0]!.content } };
  }
  const room = request.method === 'POST' && parts[0] === 'join' ? parts[1] : parts[0] === 'rooms' && parts[2] === 'join' ? parts[1] : undefined;
  if (well && room?.startsWith('!r')) return { [who]: `joins ${room}` };
  if (well && request.method === 'PUT' && parts[0] === 'rooms' && parts[2] === 'send' && parts.length === 5) {
    const { msgtype, body: text, ...rest } = body;
    const plain = parts[3] === 'm.room.message' && msgtype === 'm.text' && typeof text === 'string' && !/["\n]/.test(text) && !Object.keys(rest).length;
    if (plain) return { [who]: `says "${text}" in ${parts[1]}` };
    return { event: { by: who, room: parts[1], type: parts[3], content: body } };
  }
  const step: Record<string, unknown> = { by: who, [request.method.toLowerCase()]: path };
  if (Object.keys(body).length) step.body = body;
  if (!well) step.expect = { status: answer!.status };
  return { request: step };
}

/** The YAML of a step of a scenario; `undefined` where the message is neither a request nor a transaction. */
export function asStep(message: Message, answer: Message | undefined, names: Names): string | undefined {
  let step: unknown;
  if (message.from === 'client') {
    const request = bodyOf<HttpRequest>(message);
    if (request.cut) return undefined;
    step = requestStep(request, answer && bodyOf<HttpAnswer>(answer), names);
  } else if (message.what === 'Attempt') {
    const { service, outcome, attempt, body } = bodyOf<Attempt>(message);
    const transaction: Record<string, unknown> = { to: service, body: translated(body, names, true) };
    if (/^\d{3}$/.test(outcome)) transaction.answered = Number(outcome);
    if (attempt > 1) transaction.repeated = true;
    step = { transaction };
  } else return undefined;
  return `${lines([step]).join('\n')}\n`;
}
