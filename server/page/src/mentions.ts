/** What a message names that the view "Explain" can explain. */

import { isObject } from './json';
import { middle } from './format';
import { bodyOf, isService, type Message } from './message';
import { live } from './live';

export interface Explanation {
  title: string;
  params: Record<string, string>;
}

/** At most so many links, so that a large transaction does not fill the panel. */
const MOST = 6;

interface Found {
  events: { id: string; encrypted: boolean }[];
  users: Set<string>;
  messages: { id: string; user: string; device: string }[];
  keys: [string, string][];
}

function look(value: unknown, found: Found): void {
  if (Array.isArray(value)) {
    for (const item of value) look(item, found);
    return;
  }
  if (!isObject(value)) return;
  if (typeof value.event_id === 'string') found.events.push({ id: value.event_id, encrypted: value.type === 'm.room.encrypted' });
  const content = isObject(value.content) ? value.content : value;
  const id = content['org.matrix.msgid'];
  if (typeof id === 'string') found.messages.push({ id, user: String(value.to_user_id ?? ''), device: String(value.to_device_id ?? '') });
  for (const [name, item] of Object.entries(value)) {
    if (/device_lists$/.test(name) && isObject(item)) {
      for (const list of [item.changed, item.left]) if (Array.isArray(list)) for (const user of list) found.users.add(String(user));
    }
    if (/one_time_keys_count$/.test(name) && isObject(item)) {
      for (const [user, devices] of Object.entries(item)) if (isObject(devices)) for (const device of Object.keys(devices)) found.keys.push([user, device]);
    }
    look(item, found);
  }
}

export function explanations(message: Message): Explanation[] {
  const found: Found = { events: [], users: new Set(), messages: [], keys: [] };
  const body = bodyOf<unknown>(message);
  look(body, found);
  const lane = [message.end, message.start].find(isService);
  const service = lane?.slice('service:'.length) ?? [...live.trace.facets.services][0] ?? '';
  const all: Explanation[] = [];
  const request = message.from === 'client' ? message : message.request;
  const encryptedRequest = !!request && /\/send\/m\.room\.encrypted\//.test(request.raw);
  for (const { id, encrypted } of found.events) {
    all.push({ title: `event ${middle(id, 14)}`, params: { kind: 'event', service, event: id } });
    if (encrypted || encryptedRequest) all.push({ title: `why ${middle(id, 14)} cannot be decrypted`, params: { kind: 'autopsy', event: id } });
  }
  for (const { id } of found.messages) all.push({ title: `message ${middle(id, 14)}`, params: { kind: 'to_device', service, to_device: id } });
  for (const user of found.users) all.push({ title: `device list of ${user}`, params: { kind: 'devices', service, user } });
  for (const [user, device] of found.keys) all.push({ title: `keys of ${user} on ${device}`, params: { kind: 'keys', service, user, device } });
  return [...new Map(all.map((e) => [e.title, e])).values()].slice(0, MOST);
}
