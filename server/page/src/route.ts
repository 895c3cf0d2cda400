/** The view and its parameters stand in the hash of the address, so that a link leads to the same place. */

export interface Route {
  view: string;
  params: Record<string, string>;
}

export const VIEWS = [
  ['conversation', 'Conversation'],
  ['services', 'Services'],
  ['explain', 'Explain'],
  ['inboxes', 'Inboxes'],
  ['tracked', 'Device lists'],
  ['keys', 'Keys'],
  ['actors', 'Actors'],
  ['clock', 'Clock'],
] as const;

export function parse(hash: string): Route {
  const [path = '', search = ''] = hash.replace(/^#\/?/, '').split('?');
  const view = VIEWS.some(([name]) => name === path) ? path : 'conversation';
  return { view, params: Object.fromEntries(new URLSearchParams(search)) };
}

export function href(view: string, params: Record<string, string | number | undefined> = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) if (value !== undefined && value !== '') search.set(name, String(value));
  const text = search.toString();
  return `#/${view}${text ? `?${text}` : ''}`;
}

/** Change the parameters of the view without a new entry in the browser's history. */
export function replace(view: string, params: Record<string, string | number | undefined>): void {
  const to = href(view, params);
  if (to !== location.hash) {
    history.replaceState(null, '', to);
    window.dispatchEvent(new HashChangeEvent('hashchange'));
  }
}

export function go(view: string, params: Record<string, string | number | undefined> = {}): void {
  location.hash = href(view, params);
}
