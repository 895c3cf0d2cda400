/** Small parts of several views. */

import type { ComponentChildren } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { isObject } from './json';

async function copy(text: string): Promise<void> {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const area = document.createElement('textarea');
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand('copy');
  area.remove();
  if (!done) throw new Error('not copied');
}

/** A button that copies a text, and says so. */
export function Copy(props: { label: string; text: () => string; disabled?: string }) {
  const [done, setDone] = useState<'' | 'Copied' | 'Not copied'>('');
  useEffect(() => {
    if (!done) return;
    const timer = setTimeout(() => setDone(''), 1500);
    return () => clearTimeout(timer);
  }, [done]);
  return (
    <button
      type="button"
      class="quiet"
      disabled={!!props.disabled}
      title={props.disabled}
      onClick={() => copy(props.text()).then(() => setDone('Copied'), () => setDone('Not copied'))}
    >
      <span aria-live="polite">{done || props.label}</span>
    </button>
  );
}

/** A line of code to copy, as in a state where there is nothing to show yet. */
export function Code(props: { text: string }) {
  return (
    <div class="code-line">
      <pre tabIndex={0}>{props.text}</pre>
      <Copy label="Copy" text={() => props.text} />
    </div>
  );
}

export function Empty(props: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <h2>{props.title}</h2>
      {props.children}
    </div>
  );
}

export function Problem(props: { text: string | undefined }) {
  return props.text ? <p class="problem" role="alert">{props.text}</p> : null;
}

/** A state in a word, with the colour of its kind. */
export function Chip(props: { kind: 'good' | 'bad' | 'busy' | 'plain'; children: ComponentChildren }) {
  return <span class={`chip ${props.kind}`}>{props.children}</span>;
}

/** A value as a tree, whose deeper parts are folded. */
export function Tree(props: { value: unknown; name?: string; open?: number }) {
  const { value, name, open = 5 } = props;
  const key = name === undefined ? null : <span class="key">{name}: </span>;
  if (!Array.isArray(value) && !isObject(value)) {
    const kind = value === null ? 'null' : typeof value;
    return <div class="leaf">{key}<span class={kind}>{typeof value === 'string' ? value : JSON.stringify(value)}</span></div>;
  }
  const entries = Object.entries(value);
  const [left, right] = Array.isArray(value) ? ['[', ']'] : ['{', '}'];
  if (!entries.length) return <div class="leaf">{key}<span class="null">{left}{right}</span></div>;
  const size = `${left} ${entries.length} ${right}`;
  return (
    <details open={open > 0 && entries.length <= 50}>
      <summary>{key}<span class="null">{size}</span></summary>
      {entries.map(([k, v]) => <Tree key={k} name={k} value={v} open={open - 1} />)}
    </details>
  );
}

/** A button that asks the server for something, and shows what came of it beside itself. */
export function Act(props: { label: string; run: () => Promise<string>; disabled?: boolean; kind?: string }) {
  const [state, set] = useState<{ text: string; bad: boolean } | 'busy' | undefined>();
  const run = () => {
    set('busy');
    props.run().then((text) => set({ text, bad: false }), (e: Error) => set({ text: e.message, bad: true }));
  };
  return (
    <span class="act">
      <button type="button" class={props.kind ?? ''} disabled={props.disabled || state === 'busy'} onClick={run}>{props.label}</button>
      <span role="status" class={typeof state === 'object' && state.bad ? 'bad-text' : 'muted'}>
        {state === 'busy' ? '…' : state?.text}
      </span>
    </span>
  );
}

export interface Column<T> {
  title: string;
  cell: (row: T) => ComponentChildren;
  number?: boolean;
}

export function Table<T>(props: { label: string; rows: T[]; columns: Column<T>[]; rowClass?: (row: T) => string }) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={props.label}>
      <table>
        <thead>
          <tr>{props.columns.map((c) => <th key={c.title} scope="col" class={c.number ? 'number' : ''}>{c.title}</th>)}</tr>
        </thead>
        <tbody>
          {props.rows.map((row, i) => (
            <tr key={i} class={props.rowClass?.(row)}>
              {props.columns.map((c) => <td key={c.title} class={c.number ? 'number' : ''}>{c.cell(row)}</td>)}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
