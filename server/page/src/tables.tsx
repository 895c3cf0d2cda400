/** Inboxes, device lists, keys and actors: one table each, with a filter. */

import { useEffect, useState } from 'preact/hooks';
import { ask, query } from './api';
import { Empty, Problem, Table, Tree, type Column } from './bits';
import { dateAndTime, words } from './format';
import { useAsked } from './hooks';
import { isObject } from './json';
import { href, replace } from './route';

/** A page of a list: the rows, and where the next page begins. */
interface Listed {
  rows: Row[];
  next?: string | number;
}

type Row = Record<string, unknown>;

interface View {
  title: string;
  path: string;
  lead: string;
  empty: string;
}

export const TABLES: Record<string, View> = {
  inboxes: {
    title: 'Inboxes', path: 'inboxes', empty: 'No to-device message waits',
    lead: 'To-device messages that wait for a device, or for the service that decides over it.',
  },
  tracked: {
    title: 'Device lists', path: 'tracked', empty: 'No service tracks a user',
    lead: 'Whose device lists each service is sent, and because of which shared rooms.',
  },
  keys: {
    title: 'Keys', path: 'keys', empty: 'No device has uploaded keys',
    lead: 'The keys that the server has of each device. A fallback key that was used stays until the device uploads another.',
  },
  actors: {
    title: 'Actors', path: 'actors', empty: 'No actor has handled a message',
    lead: 'The actors of the server: messages in the mailbox, messages handled, and the slowest of them.',
  },
};

/** The list in an answer, whatever the member is called that holds it. */
function listed(answer: unknown): Listed {
  if (Array.isArray(answer)) return { rows: answer as Row[] };
  if (!isObject(answer)) return { rows: [] };
  const rows = Object.values(answer).find(Array.isArray) as Row[] | undefined;
  const next = answer.next ?? answer.next_after ?? answer.after;
  return { rows: rows ?? [], next: typeof next === 'string' || typeof next === 'number' ? next : undefined };
}

export function List(props: { view: string; params: Record<string, string> }) {
  const { title, path, lead, empty } = TABLES[props.view]!;
  const { value, error } = useAsked<unknown>(path, 1000);
  const [more, setMore] = useState<Listed[]>([]);
  const [failed, setFailed] = useState<string>();
  useEffect(() => setMore([]), [path]);
  const wanted = (props.params.filter ?? '').toLowerCase();
  const pages = value === undefined ? [] : [listed(value), ...more];
  const rows = pages.flatMap((page) => page.rows);
  const shown = wanted ? rows.filter((row) => JSON.stringify(row).toLowerCase().includes(wanted)) : rows;
  const next = pages.at(-1)?.next;
  const load = () => ask<unknown>(`${path}${query({ after: next })}`).then((page) => setMore([...more, listed(page)]), (e: Error) => setFailed(e.message));
  return (
    <div class="page">
      <h1>{title}</h1>
      <p class="muted lead">{lead}</p>
      <Problem text={error ?? failed} />
      {rows.length > 0 && (
        <label class="field single">
          <span>Filter</span>
          <input id="search" type="search" value={props.params.filter ?? ''} placeholder="Any text" onInput={(e) => replace(props.view, { filter: e.currentTarget.value })} />
        </label>
      )}
      {shown.length > 0 && <Table label={title} rows={shown} columns={columns(shown)} />}
      {rows.length > 0 && shown.length === 0 && <p class="muted">None of {rows.length} passes the filter.</p>}
      {next !== undefined && <button type="button" onClick={load}>Show more</button>}
      {value !== undefined && rows.length === 0 && <Empty title={empty} />}
    </div>
  );
}

/** Titles that say more than the name of the member. */
const TITLES: Record<string, string> = {
  rows: 'Messages', oldest: 'Oldest at position', oldest_at: 'Oldest since', one_time: 'One-time keys', fallback_used: 'Fallback key used',
  shared: 'Rooms shared', mailbox: 'In the mailbox', slowest_micros: 'Slowest took', slowest: 'Slowest message',
};
/** The members that say what a row is about. */
const FIRST = ['name', 'service', 'user', 'device'];

/** A column for each member that a row has: what it is about, then the others in the order of the first rows. */
function columns(rows: Row[]): Column<Row>[] {
  const seen = new Set(rows.slice(0, 50).flatMap((row) => Object.keys(row)));
  const names = [...FIRST.filter((name) => seen.delete(name)), ...seen];
  return names.map((name) => ({
    title: TITLES[name] ?? words(name).replace(/^./, (c) => c.toUpperCase()),
    cell: (row) => <Cell name={name} value={row[name]} row={row} />,
    number: rows.every((row) => row[name] === undefined || row[name] === null || typeof row[name] === 'number') && !/(^|_)at$/.test(name),
  }));
}

function Cell({ name, value, row }: { name: string; value: unknown; row: Row }) {
  if (name === 'decided_by' && !value) return <>the device itself</>;
  if (value === null || value === undefined) return <span class="muted">none</span>;
  if (typeof value === 'boolean') return <>{value ? 'yes' : 'no'}</>;
  if (typeof value === 'number') {
    if (/(^|_)at$/.test(name)) return <>{dateAndTime(value)}</>;
    if (name === 'oldest') return <a href={href('explain', { kind: 'to_device', service: row.decided_by as string, to_device: value })} title="Explain the message at this position">{value}</a>;
    if (/micros/.test(name)) return <>{(value / 1000).toFixed(2)} ms</>;
    return <>{value.toLocaleString('en')}</>;
  }
  if (typeof value === 'string') return <>{value}</>;
  if (Array.isArray(value) && value.every((v) => typeof v !== 'object')) return <>{value.join(', ') || <span class="muted">none</span>}</>;
  if (isObject(value) && typeof value.error === 'string') return <>{String(value.what)}: {value.error}</>;
  if (isObject(value) && Object.values(value).every((v) => typeof v !== 'object')) {
    const parts = Object.entries(value).map(([k, v]) => `${k} ${v === true ? 'yes' : v === false ? 'no' : v}`);
    return <>{parts.join(', ') || <span class="muted">none</span>}</>;
  }
  return <Tree value={value} open={0} />;
}
