/** A recorded message as the page keeps it: its text, its lanes, and what a row says of it. */

import { isObject } from './json';
import { duration, middle, words } from './format';
import type { Attempt, HttpAnswer, HttpRequest, Recorded } from './types';

/** How much of the traffic a message belongs to: requests and transactions, actors, or storage and hints. */
export type Level = 0 | 1 | 2;

export interface Message {
  number: number;
  at: number;
  cause: string;
  from: string;
  to: string;
  what: string;
  /** The message as it came, as JSON text. */
  raw: string;
  /** The lanes between which it is drawn. */
  start: string;
  end: string;
  level: Level;
  /** The request that caused it, if it is known. */
  request?: Message;
  /** Whether an error was answered, or a transaction was not acknowledged. */
  failed: boolean;
  label?: string;
}

const CLIENT = 'client:';
const SERVICE = 'service:';

/** The lane of a person's device, or of an application service. */
export function isClient(lane: string): boolean {
  return lane.startsWith(CLIENT);
}
export function isService(lane: string): boolean {
  return lane.startsWith(SERVICE);
}

/** The lines of a lane's heading. */
export function laneName(lane: string): [string, string] {
  if (isService(lane)) return [lane.slice(SERVICE.length), 'service'];
  if (!isClient(lane)) return [lane.replaceAll('_', ' '), ''];
  const who = lane.slice(CLIENT.length);
  if (!who) return ['client', 'without a token'];
  const [user, device] = who.split(' ');
  return [user!.replace(/^@([^:]*):.*$/, '$1'), device ?? ''];
}

export function bodyOf<T>(message: Message): T {
  return (JSON.parse(message.raw) as { body: T }).body;
}

/** The order of the lanes of the server, so that most arrows are short. */
const ORDER = [
  'server', 'start', 'http', 'accounts', 'rooms', 'to_device_inbox', 'key_proxy', 'key_store', 'device_lists', 'appservices', 'proposals',
  'host', 'sync', 'store', 'wake', 'appservice_queries', 'appservice_sender',
];

/** Lanes from left to right: clients, the server's actors, services. */
export function ordered(lanes: Iterable<string>): string[] {
  const place = (lane: string) => {
    if (isClient(lane)) return -1;
    if (isService(lane)) return 1000;
    const at = ORDER.indexOf(lane);
    return at < 0 ? 500 : at;
  };
  return [...lanes].map((lane, i) => ({ lane, i })).sort((a, b) => place(a.lane) - place(b.lane) || a.i - b.i).map(({ lane }) => lane);
}

/** Hints, and bookkeeping of every request. */
const QUIET = new Set(['WakeSender', 'WakeSync', 'DeviceSeen']);

function levelOf(from: string, to: string, what: string): Level {
  if (from === 'client' || to === 'client' || from === 'service' || to === 'service') return 0;
  const quiet = from === 'store' || to === 'store' || from === 'start' || QUIET.has(what);
  return quiet ? 2 : 1;
}

function clientLane(request: HttpRequest): string {
  if (request.service) return SERVICE + request.service;
  if (!request.user) return CLIENT;
  return CLIENT + request.user + (request.device ? ` ${request.device}` : '');
}

/** Read a recorded message. `causes` has the request of each cause, and gets the ones that come. */
export function read(raw: string, causes: Map<string, Message>): Message {
  const recorded = JSON.parse(raw) as Recorded;
  const { number, at, from, to, what } = recorded;
  const cause = recorded.cause ?? '';
  const body = isObject(recorded.body) ? recorded.body : {};
  const message: Message = {
    number, at, cause, from, to, what, raw, start: from, end: to, level: levelOf(from, to, what), failed: false,
  };
  if (from === 'client') {
    message.start = clientLane(body as unknown as HttpRequest);
    causes.set(cause, message);
    return message;
  }
  message.request = causes.get(cause);
  if (to === 'client') {
    message.end = message.request?.start ?? CLIENT;
    message.failed = Number(body.status) >= 400;
  }
  if (to === 'service') message.end = SERVICE + String(body.service ?? '');
  if (from === 'service') message.start = SERVICE + String(body.service ?? '');
  if (what === 'Attempt') message.failed = !/^2\d\d$/.test(String(body.outcome));
  return message;
}

/** A path as a person reads it: without the part up to the version, and decoded. */
export function shortPath(path: string): string {
  const rest = path.replace(/^\/_matrix\/(client\/(v3|r0)|app\/v1)/, '');
  try {
    return decodeURIComponent(rest);
  } catch {
    return rest;
  }
}

/** What an `Attempt` carries: `1 event, 2 to-device`. */
export function carried(body: unknown): string {
  if (!isObject(body)) return '';
  const parts: string[] = [];
  for (const [name, value] of Object.entries(body)) {
    // The types of fallback keys always come with the counts.
    if (/fallback_key_types$/.test(name)) continue;
    const short = /one_time_keys_count$/.test(name) ? 'key counts' : words(name.replace(/^.*\.(msc\d+)\./, ''));
    const add = (n: number) => parts.push(`${n} ${n === 1 ? short.replace(/s$/, '') : short}`);
    if (Array.isArray(value) && value.length) add(value.length);
    else if (isObject(value) && Object.keys(value).length) {
      const lists = Object.values(value).filter(Array.isArray) as unknown[][];
      const n = lists.length ? lists.reduce((sum, list) => sum + list.length, 0) : Object.keys(value).length;
      if (n) add(n);
    }
  }
  return [...new Set(parts)].join(', ');
}

/** The end of a transaction's id, by which a person tells neighbours apart. */
function shortId(transaction: number): string {
  const text = String(transaction);
  return text.length > 9 ? `…${text.slice(-7)}` : text;
}

/** The members of an actor's message that tell it from others of its type. */
const TELLING = ['event_type', 'kind', 'membership', 'user', 'service', 'room', 'question', 'username', 'transaction'];

function gist(body: unknown): string {
  if (!isObject(body)) return '';
  const parts = TELLING.map((name) => body[name]).filter((v) => typeof v === 'string' || typeof v === 'number');
  return parts.slice(0, 2).map((v) => middle(String(v), 34)).join(' ');
}

/** What a row says of a message. */
export function label(message: Message): string {
  return (message.label ??= describe(message));
}

function describe(message: Message): string {
  const { what } = message;
  if (message.from === 'client') {
    const { method, path } = bodyOf<HttpRequest>(message);
    return `${method} ${middle(shortPath(path), 90)}`;
  }
  if (message.to === 'client') {
    const { status, micros, body } = bodyOf<HttpAnswer>(message);
    const code = isObject(body) && typeof body.errcode === 'string' ? ` ${body.errcode}` : '';
    return `${status}${code} · ${duration(micros / 1000)}`;
  }
  if (what === 'Attempt') {
    const { transaction, attempt, outcome, body } = bodyOf<Attempt>(message);
    const again = attempt > 1 ? ` attempt ${attempt}` : '';
    return `transaction ${shortId(transaction)}${again} → ${middle(outcome, 40)} · ${carried(body) || 'empty'}`;
  }
  if (what === 'Write') {
    const rows = bodyOf<Record<string, number>>(message);
    return Object.entries(rows).map(([name, n]) => (n ? `${name} ${n}` : name)).join(', ');
  }
  return `${what} ${gist(bodyOf<unknown>(message))}`.trim();
}
