/** Requests to the development routes. */

/** Ask a route below `/_understudy/`. Throws an error with one line for people. */
export async function ask<T>(path: string, body?: unknown): Promise<T> {
  const init: RequestInit =
    body === undefined ? {} : { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
  let answer: Response;
  try {
    answer = await fetch(path, init);
  } catch {
    throw new Error('The server does not answer.');
  }
  const text = await answer.text();
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  if (answer.ok && value !== undefined) return value as T;
  const said = (value as { error?: string } | undefined)?.error;
  throw new Error(said ? `${said} (${answer.status})` : `The server answered ${answer.status}.`);
}

/** A query, from the members that have a value. */
export function query(values: Record<string, string | number | undefined>): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) if (value !== undefined && value !== '') params.set(name, String(value));
  const text = params.toString();
  return text ? `?${text}` : '';
}
