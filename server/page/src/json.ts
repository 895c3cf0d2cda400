/** Parts of a JSON text as they stand in it: numbers, keys and escapes are not written anew. */

function stringEnd(text: string, at: number): number {
  for (let i = at + 1; i < text.length; i++) {
    if (text[i] === '\\') i++;
    else if (text[i] === '"') return i + 1;
  }
  return text.length;
}

function valueEnd(text: string, at: number): number {
  const first = text[at];
  if (first === '"') return stringEnd(text, at);
  if (first !== '{' && first !== '[') {
    let i = at;
    while (i < text.length && !',]} \t\r\n'.includes(text[i]!)) i++;
    return i;
  }
  let depth = 0;
  for (let i = at; i < text.length; i++) {
    const c = text[i];
    if (c === '"') i = stringEnd(text, i) - 1;
    else if (c === '{' || c === '[') depth++;
    else if ((c === '}' || c === ']') && --depth === 0) return i + 1;
  }
  return text.length;
}

function gap(text: string, at: number): number {
  while (' \t\r\n'.includes(text[at] ?? '.')) at++;
  return at;
}

/** The text of the member at this path of an object; `undefined` if there is none. */
export function memberText(text: string, ...path: string[]): string | undefined {
  let at = gap(text, 0);
  let end = text.length;
  for (const name of path) {
    if (text[at] !== '{') return undefined;
    let i = gap(text, at + 1);
    let found = false;
    while (i < text.length && text[i] === '"') {
      const keyEnd = stringEnd(text, i);
      const key: string = JSON.parse(text.slice(i, keyEnd));
      const value = gap(text, gap(text, keyEnd) + 1);
      end = valueEnd(text, value);
      if (key === name) {
        at = value;
        found = true;
        break;
      }
      i = gap(text, end);
      if (text[i] === ',') i = gap(text, i + 1);
    }
    if (!found) return undefined;
  }
  return text.slice(at, end);
}

/** The length of a text in bytes, as UTF-8. */
export function bytesOf(text: string): number {
  return new TextEncoder().encode(text).length;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
