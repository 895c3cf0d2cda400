/** Commands that send a recorded request or transaction again. */

import { bodyOf, type Message } from './message';
import { memberText } from './json';
import type { Attempt, HttpRequest } from './types';

const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;

/** A path that may go into a command: what is not ASCII is escaped. */
const safe = (path: string) => (/^[\x21-\x7e]*$/.test(path) ? path : encodeURI(path));

/** The query without the values that the server hides. */
function shownQuery(query: string | undefined): string {
  const parts = (query ?? '').split('&').filter((part) => part && !/=(…|%E2%80%A6)$/.test(part));
  return parts.length ? `?${safe(parts.join('&'))}` : '';
}

function command(method: string, url: string, token: string | undefined, body: string | undefined): string {
  const lines = [`curl -X ${method} ${quoted(url)}`];
  if (token) lines.push(`-H "Authorization: Bearer $${token}"`);
  if (body !== undefined) lines.push("-H 'Content-Type: application/json'", `--data-binary ${quoted(body)}`);
  return lines.join(' \\\n  ');
}

export interface Copied {
  text: string;
  /** Why there is no complete command. */
  missing?: string;
}

/** The request or transaction as a command; `undefined` for another message. */
export function asCurl(message: Message, origin: string, urlOf: (service: string) => string | undefined): Copied | undefined {
  if (message.from === 'client') {
    const request = bodyOf<HttpRequest>(message);
    if (request.cut) return { text: '', missing: 'The server kept only the beginning of the body.' };
    const has = request.method !== 'GET' && request.method !== 'DELETE' ? memberText(message.raw, 'body', 'body') ?? '{}' : undefined;
    const token = request.user || request.service ? 'TOKEN' : undefined;
    const holder = request.service ? `the as_token of ${request.service}` : `the access token of ${request.user}${request.device ? ` on ${request.device}` : ''}`;
    const text = command(request.method, origin + safe(request.path) + shownQuery(request.query), token, has);
    return { text: token ? `# TOKEN: ${holder}\n${text}\n` : `${text}\n` };
  }
  if (message.what === 'Attempt') {
    const attempt = bodyOf<Attempt>(message);
    const url = urlOf(attempt.service);
    if (!url) return { text: '', missing: 'The service has no URL.' };
    const path = attempt.path ?? `/_matrix/app/v1/transactions/${attempt.transaction}`;
    const body = memberText(message.raw, 'body', 'body') ?? '{}';
    const text = command('PUT', url.replace(/\/$/, '') + path.replace(/\?.*/, ''), 'HS_TOKEN', body);
    return { text: `# HS_TOKEN: the hs_token of ${attempt.service}\n${text}\n` };
  }
  return undefined;
}

/** The request line, headers and body of a message that left or reached the process; `undefined` for a message between actors. */
export function onTheWire(message: Message): { head: string; body: string; note: string } | undefined {
  const body = memberText(message.raw, 'body', 'body') ?? '';
  if (message.from === 'client') {
    const { method, path, query, cut } = bodyOf<HttpRequest>(message);
    const note = cut ? `The body had ${cut.toLocaleString('en')} bytes; the server kept its beginning.` : '';
    return { head: `${method} ${path}${query ? `?${query}` : ''}`, body, note };
  }
  if (message.to === 'client') {
    const { status, cut } = bodyOf<{ status: number; cut?: number }>(message);
    const note = cut ? `The body had ${cut.toLocaleString('en')} bytes; the server kept its beginning.` : '';
    return { head: `HTTP ${status}`, body, note };
  }
  if (message.what === 'Attempt') {
    const { transaction, path, outcome } = bodyOf<Attempt>(message);
    return { head: `PUT ${path ?? `/_matrix/app/v1/transactions/${transaction}`}`, body, note: `Answered: ${outcome}` };
  }
  return undefined;
}
