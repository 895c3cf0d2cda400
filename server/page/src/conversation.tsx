/** The conversation: a sequence diagram of what was recorded, with filters, and a panel about one message. */

import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { Code, Empty } from './bits';
import { count } from './format';
import { isTyped, useChanges } from './hooks';
import { live } from './live';
import { type Level } from './message';
import { Panel } from './panel';
import { parse, replace } from './route';
import { Rows } from './rows';
import { NO_FILTER, type Filter, type Trace } from './trace';

const LEVELS = ['Wire', 'Actors', 'Everything'] as const;
const LEVEL_HINTS = ['Requests and transactions', 'Also messages between actors', 'Also writes and hints'];

function filterOf(params: Record<string, string>): Filter {
  const level = Math.max(0, ['wire', 'actors', 'everything'].indexOf(params.detail ?? 'actors')) as Level;
  const { person = '', service = '', room = '', type = '', msc = '', q = '', cause = '' } = params;
  return { level, person, service, room, type, msc, search: q, cause };
}

function paramsOf(filter: Filter, message: string | undefined) {
  const { level, search, ...rest } = filter;
  const detail = level === NO_FILTER.level ? undefined : LEVELS[level].toLowerCase();
  return { detail, ...rest, q: search, m: message };
}

const DEFAULT = JSON.stringify(NO_FILTER);

export function Conversation(props: { params: Record<string, string> }) {
  const { trace } = live;
  useChanges(trace);
  const filter = useMemo(() => filterOf(props.params), [JSON.stringify(props.params)]);
  const key = JSON.stringify(filter);
  useMemo(() => {
    if (JSON.stringify(trace.filter) !== key) trace.setFilter(filter);
  }, [key]);
  const chosen = props.params.m;
  const message = chosen ? trace.find(Number(chosen)) : undefined;
  const [follow, setFollow] = useState(!chosen);
  // A field informs a moment after it was typed in, so the address is read anew.
  const change = (part: Partial<Filter>) => {
    const { params } = parse(location.hash);
    replace('conversation', paramsOf({ ...filterOf(params), ...part }, params.m));
  };
  const select = (number: number | undefined) => {
    if (number !== undefined) setFollow(false);
    replace('conversation', paramsOf(filter, number === undefined ? undefined : String(number)));
  };
  const controls = { follow, setFollow, trace, filter, change };
  useShortcuts(controls, () => select(undefined));
  return (
    <div class="conversation">
      <h1 class="unseen">Conversation</h1>
      <Toolbar {...controls} />
      <div class={message || chosen ? 'split' : 'split alone'}>
        {trace.shown.length && (trace.hasTraffic || filter.level === 2 || key !== DEFAULT) ? (
          <Rows trace={trace} level={filter.level} follow={follow} setFollow={setFollow} selected={message} select={select} />
        ) : (
          <Nothing trace={trace} change={change} />
        )}
        {message && <Panel key={message.number} message={message} select={select} only={(cause) => change({ cause })} />}
        {chosen && !message && (
          <aside class="panel" aria-label="Message">
            <p class="muted">Message {chosen} is not among those that the page has: the server keeps only the newest.</p>
            <button type="button" onClick={() => select(undefined)}>Close</button>
          </aside>
        )}
      </div>
    </div>
  );
}

interface Controls {
  trace: Trace;
  filter: Filter;
  change: (part: Partial<Filter>) => void;
  follow: boolean;
  setFollow: (follow: boolean) => void;
}

/** Keys that work while no field has the focus. */
function useShortcuts({ trace, follow, setFollow }: Controls, close: () => void) {
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (isTyped(event)) return;
      if (event.key === 'p') trace.pause(!trace.paused);
      else if (event.key === '.') {
        if (!trace.paused) trace.pause(true);
        trace.step();
      } else if (event.key === 'f') setFollow(!follow);
      else if (event.key === '/') document.getElementById('search')?.focus();
      else if (event.key === 'Escape') close();
      else return;
      event.preventDefault();
    };
    window.addEventListener('keydown', pressed);
    return () => window.removeEventListener('keydown', pressed);
  });
}

function Toolbar(controls: Controls) {
  const { trace, filter, change, follow, setFollow } = controls;
  const { persons, services, rooms, types, mscs } = trace.facets;
  const filtered = JSON.stringify({ ...filter, level: 0 }) !== JSON.stringify({ ...NO_FILTER, level: 0 });
  return (
    <div class="toolbar" role="group" aria-label="Filters and playback">
      <div class="segments" role="radiogroup" aria-label="Detail">
        {LEVELS.map((name, level) => (
          <label key={name} title={LEVEL_HINTS[level]}>
            <input type="radio" name="detail" checked={filter.level === level} onChange={() => change({ level: level as Level })} />
            <span>{name}</span>
          </label>
        ))}
      </div>
      <Field name="person" label="Person" value={filter.person} values={persons} change={(person) => change({ person })} />
      <Field name="service" label="Service" value={filter.service} values={services} change={(service) => change({ service })} />
      <Field name="room" label="Room" value={filter.room} values={rooms} change={(room) => change({ room })} />
      <Field name="type" label="Type" value={filter.type} values={types} change={(type) => change({ type })} />
      <Field name="msc" label="MSC" value={filter.msc} values={mscs} change={(msc) => change({ msc })} narrow />
      <Field name="search" label="Search" value={filter.search} change={(search) => change({ search })} hint="any text" wide />
      {filter.cause && (
        <button type="button" class="quiet" onClick={() => change({ cause: '' })} title={filter.cause}>Only request {filter.cause.split(' ')[0]} ×</button>
      )}
      {filtered && <button type="button" class="quiet" onClick={() => change({ ...NO_FILTER, level: filter.level })}>Clear filters</button>}
      <span class="spring" />
      <span class="muted tally" role="status">
        {filtered || filter.level < 2 ? `${trace.shown.length.toLocaleString('en')} of ` : ''}
        {count(trace.all.length, 'message')}
      </span>
      <button type="button" aria-pressed={trace.paused} onClick={() => trace.pause(!trace.paused)} title="p">
        {trace.paused ? `Resume${trace.waiting ? ` · ${trace.waiting.toLocaleString('en')} new` : ''}` : 'Pause'}
      </button>
      <button type="button" disabled={!trace.paused} onClick={() => trace.step()} title="Show the next message  .">Step</button>
      <button type="button" aria-pressed={follow} onClick={() => setFollow(!follow)} title="Stay at the newest message  f">Follow</button>
    </div>
  );
}

interface FieldProps {
  name: string;
  label: string;
  value: string;
  change: (value: string) => void;
  values?: Set<string>;
  hint?: string;
  narrow?: boolean;
  wide?: boolean;
}

/** A text field that offers the values that were seen; any part of a value works too. */
function Field({ name, label, value, values, change, hint, narrow, wide }: FieldProps) {
  const [text, setText] = useState(value);
  const timer = useRef(0);
  useEffect(() => setText(value), [value]);
  const typed = (next: string) => {
    setText(next);
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => change(next.trim()), 150);
  };
  return (
    <label class={`field ${narrow ? 'narrow' : wide ? 'wide' : ''} ${value ? 'set' : ''}`}>
      <span>{label}</span>
      <input
        id={name} type="text" value={text} placeholder={hint ?? 'any'} spellcheck={false} autocomplete="off"
        list={values?.size ? `${name}s-seen` : undefined} onInput={(e) => typed(e.currentTarget.value)}
      />
      {values && values.size > 0 && (
        <datalist id={`${name}s-seen`}>{[...values].map((v) => <option key={v} value={v} />)}</datalist>
      )}
    </label>
  );
}

/** What to do while there is nothing to see. */
function Nothing({ trace, change }: Pick<Controls, 'trace' | 'change'>) {
  useChanges(live);
  if (!live.hello && live.connection.state !== 'live') return <Empty title="Connecting to the server" />;
  if (trace.hasTraffic) {
    return (
      <Empty title="No message passes the filters">
        <p>{count(trace.all.length, 'message')} {trace.all.length === 1 ? 'is' : 'are'} hidden.</p>
        <button type="button" onClick={() => change(NO_FILTER)}>Clear filters</button>
      </Empty>
    );
  }
  const login = `curl -X POST ${location.origin}/_matrix/client/v3/login -H 'Content-Type: application/json' \\
  -d '{"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}, "password": "alice-password"}'`;
  return (
    <Empty title="Nothing was sent yet">
      <p>Each request, each message between actors and each transaction appears here as it happens. Send a first request:</p>
      <Code text={login} />
      {trace.all.length > 0 && (
        <p>
          The server has started, with {count(trace.all.length, 'message')} between its actors:{' '}
          <button type="button" class="link" onClick={() => change({ level: 2 })}>show them</button>
        </p>
      )}
      <p>To see a bridge, copy its registration into the folder that the server printed when it started (<code>understudy-data/appservices</code> by default).</p>
    </Empty>
  );
}

