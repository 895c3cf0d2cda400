/** All messages that the page has, and those that the filters show, in the order in which they were recorded. */

import { isService, read, type Level, type Message } from './message';

export interface Filter {
  level: Level;
  person: string;
  service: string;
  room: string;
  type: string;
  msc: string;
  search: string;
  /** Only the messages that this request caused. */
  cause: string;
}

export const NO_FILTER: Filter = { level: 1, person: '', service: '', room: '', type: '', msc: '', search: '', cause: '' };

/** The values that the filters offer. */
export interface Facets {
  persons: Set<string>;
  services: Set<string>;
  rooms: Set<string>;
  types: Set<string>;
  mscs: Set<string>;
}

/** The page keeps at most so many messages, and drops so many of the oldest at once. */
const MOST = 120_000;
const DROPPED = 20_000;
/** A value of a filter is offered only while there are at most so many. */
const OFFERED = 500;
/** The filters work for at most so many milliseconds before the browser draws again. */
const SLICE = 10;

/** The cause of messages that a page caused by looking. */
const LOOKING = /^\S+ GET \/_understudy\//;

const PERSON = /@[^\s"\\/?&:*%()]+:[A-Za-z0-9.-]+(?::\d+)?/g;
const ROOM = /![A-Za-z0-9_-]{6,}(?::[A-Za-z0-9.-]+(?::\d+)?)?/g;
const TYPE = /"(?:type|event_type|kind)":"((?:m|org|com|io|de|net)\.[A-Za-z0-9_.-]+)"/g;
const MSC = /msc(\d{3,5})/gi;

type Test = (message: Message) => boolean;

/** Whether a message passes, by the parts of the filter that say something. */
function tests(filter: Filter): Test[] {
  const all: Test[] = [(m) => m.level <= filter.level];
  const orItsRequest = (test: Test) => all.push((m) => test(m) || (m.request !== undefined && test(m.request)));
  const contains = (text: string) => {
    const encoded = encodeURIComponent(text);
    const has = encoded === text ? (m: Message) => m.raw.includes(text) : (m: Message) => m.raw.includes(text) || m.raw.includes(encoded);
    orItsRequest(has);
  };
  if (filter.person) contains(filter.person);
  if (filter.room) contains(filter.room);
  if (filter.type) contains(filter.type);
  if (filter.service) {
    const lane = `service:${filter.service}`;
    const texts = [`"service":"${filter.service}"`, `"Service":"${filter.service}"`, `owed ${filter.service} `, ` ${filter.service} `];
    orItsRequest((m) => m.start === lane || m.end === lane || texts.some((text) => m.raw.includes(text)));
  }
  if (filter.msc) {
    const wanted = new RegExp(`msc0*${filter.msc}\\b`, 'i');
    all.push((m) => wanted.test(m.raw));
  }
  if (filter.cause) all.push((m) => m.cause === filter.cause);
  if (filter.search) {
    const wanted = new RegExp(filter.search.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'), 'i');
    all.push((m) => wanted.test(m.raw));
  }
  return all;
}

export class Trace {
  all: Message[] = [];
  shown: Message[] = [];
  /** The lanes of the messages that are shown. */
  lanes = new Set<string>();
  facets: Facets = { persons: new Set(), services: new Set(), rooms: new Set(), types: new Set(), mscs: new Set() };
  filter = NO_FILTER;
  paused = false;
  /** The number of the newest message that came. */
  newest = 0;
  /** Whether a request, an answer or a transaction was recorded. */
  hasTraffic = false;
  /** The number of the last message that the server no longer had when the page asked for it. */
  lost = 0;
  private causes = new Map<string, Message>();
  private tests = tests(NO_FILTER);
  /** How many of `all` the filters have looked at, and how many they may. */
  private looked = 0;
  private held = 0;
  private listeners = new Set<() => void>();
  private due = false;

  /** The messages that came since the pause and pass the filters are not counted: only those that came. */
  get waiting(): number {
    return this.paused ? this.all.length - this.held : 0;
  }

  /** Whether the filters have looked at everything that they may. */
  get settled(): boolean {
    return this.looked >= (this.paused ? this.held : this.all.length);
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  add(raw: string): void {
    const message = read(raw, this.causes);
    if (message.number <= this.newest) return;
    this.newest = message.number;
    // What the page asks of the server is not part of the conversation, and must not make the page ask again.
    if (LOOKING.test(message.cause)) return;
    this.all.push(message);
    this.hasTraffic ||= message.level === 0;
    this.offer(message);
    if (this.all.length > MOST) this.dropOldest();
    this.later();
  }

  clear(): void {
    Object.assign(this, { all: [], shown: [], lanes: new Set(), looked: 0, held: 0, lost: 0, newest: 0, paused: false, hasTraffic: false });
    this.causes.clear();
    for (const values of Object.values(this.facets)) values.clear();
    this.later();
  }

  setFilter(filter: Filter): void {
    this.filter = filter;
    this.tests = tests(filter);
    this.shown = [];
    this.lanes = new Set();
    this.looked = 0;
    this.work();
    this.later();
  }

  pause(paused: boolean): void {
    this.paused = paused;
    this.held = this.all.length;
    this.later();
  }

  /** While it is paused: go on to the next message that passes the filters. */
  step(): void {
    const before = this.shown.length;
    while (this.shown.length === before && this.looked < this.all.length) this.lookAt(this.all[this.looked++]!);
    this.held = Math.max(this.held, this.looked);
    this.later();
  }

  find(number: number): Message | undefined {
    const found = this.all[this.indexOf(number)];
    return found?.number === number ? found : undefined;
  }

  /** Where the message with this number is among all, or the next one. */
  private indexOf(number: number): number {
    let low = 0;
    let high = this.all.length;
    while (low < high) {
      const mid = (low + high) >> 1;
      if (this.all[mid]!.number < number) low = mid + 1;
      else high = mid;
    }
    return low;
  }

  /** The answer to a request, if it came soon after it. */
  answerTo(request: Message): Message | undefined {
    const start = this.indexOf(request.number);
    for (let i = start; i < this.all.length && i < start + 10_000; i++) {
      const m = this.all[i]!;
      if (m.to === 'client' && m.request === request) return m;
    }
    return undefined;
  }

  private offer(message: Message): void {
    const { persons, services, rooms, types, mscs } = this.facets;
    const offer = (set: Set<string>, pattern: RegExp, group: number) => {
      if (set.size >= OFFERED) return;
      for (const found of message.raw.matchAll(pattern)) set.add(found[group]!);
    };
    if (message.level === 2) return;
    offer(persons, PERSON, 0);
    offer(rooms, ROOM, 0);
    offer(types, TYPE, 1);
    offer(mscs, MSC, 1);
    for (const lane of [message.start, message.end]) if (isService(lane)) services.add(lane.slice('service:'.length));
  }

  private lookAt(message: Message): void {
    if (!this.tests.every((test) => test(message))) return;
    this.shown.push(message);
    this.lanes.add(message.start).add(message.end);
  }

  private work(): void {
    const end = this.paused ? this.held : this.all.length;
    const until = performance.now() + SLICE;
    while (this.looked < end) {
      for (let n = Math.min(500, end - this.looked); n > 0; n--) this.lookAt(this.all[this.looked++]!);
      if (performance.now() > until) break;
    }
  }

  private dropOldest(): void {
    const oldest = this.all[DROPPED]!.number;
    this.all = this.all.slice(DROPPED);
    this.looked = Math.max(0, this.looked - DROPPED);
    this.held = Math.max(0, this.held - DROPPED);
    this.shown = this.shown.filter((m) => m.number >= oldest);
    for (const [cause, request] of this.causes) if (request.number < oldest) this.causes.delete(cause);
    for (const m of this.all) if (m.request && m.request.number < oldest) m.request = undefined;
    this.lost = oldest - 1;
  }

  /** Apply the filters to what came, and inform the listeners, once before the browser draws. */
  private later(): void {
    if (this.due) return;
    this.due = true;
    const run = () => {
      if (!this.due) return;
      this.due = false;
      this.work();
      for (const listener of this.listeners) listener();
      if (!this.settled) this.later();
    };
    requestAnimationFrame(run);
    // A tab in the background draws nothing.
    setTimeout(run, 250);
  }
}
