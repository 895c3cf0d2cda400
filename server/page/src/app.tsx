/** The frame of the page: navigation, connection, clock, theme, and the view that the address names. */

import { useEffect, useRef, useState } from 'preact/hooks';
import { ask } from './api';
import { Clock } from './clock';
import { Conversation } from './conversation';
import { Explain } from './explain';
import { duration, timeOfDay } from './format';
import { isTyped, useChanges, useRoute, useTicks } from './hooks';
import { live } from './live';
import { VIEWS, go, href } from './route';
import { Services } from './services';
import { List, TABLES } from './tables';
import { choose, chosen, type Theme } from './theme';
import type { ClockState } from './types';

export function App() {
  const { view, params } = useRoute();
  const [help, setHelp] = useState(false);
  useKeys(setHelp);
  useClock();
  useEffect(() => {
    document.title = `${VIEWS.find(([name]) => name === view)![1]} · understudy`;
  }, [view]);
  return (
    <>
      <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); document.getElementById('main')?.focus(); }}>Skip to the content</a>
      <Header view={view} showHelp={() => setHelp(true)} />
      <main id="main" tabIndex={-1}>
        {view === 'conversation' && <Conversation params={params} />}
        {view === 'services' && <Services params={params} />}
        {view === 'explain' && <Explain params={params} />}
        {view === 'clock' && <Clock />}
        {TABLES[view] && <List key={view} view={view} params={params} />}
      </main>
      {help && <Help close={() => setHelp(false)} />}
    </>
  );
}

/** Keys that work in every view while no field has the focus. */
function useKeys(setHelp: (shown: boolean) => void) {
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (isTyped(event)) return;
      const index = Number(event.key) - 1;
      if (VIEWS[index]) go(VIEWS[index][0]);
      else if (event.key === '?') setHelp(true);
    };
    window.addEventListener('keydown', pressed);
    return () => window.removeEventListener('keydown', pressed);
  }, []);
}

/** Read the server's clock every few seconds while the page is seen: another program can freeze or advance it. */
function useClock() {
  useEffect(() => {
    const timer = setInterval(() => {
      if (document.hidden || live.connection.state !== 'live') return;
      ask<ClockState>('clock').then((clock) => live.setClock(clock), () => undefined);
    }, 3000);
    return () => clearInterval(timer);
  }, []);
}

function Header({ view, showHelp }: { view: string; showHelp: () => void }) {
  return (
    <header class="top">
      <span class="name">understudy</span>
      <nav aria-label="Views">
        {VIEWS.map(([name, title], i) => (
          <a key={name} href={href(name)} aria-current={name === view ? 'page' : undefined} title={`${i + 1}`}>{title}</a>
        ))}
      </nav>
      <span class="spring" />
      <Status />
      <ThemeChoice />
      <button type="button" class="quiet" onClick={showHelp} title="Keys  ?" aria-label="Keys">?</button>
    </header>
  );
}

function Status() {
  useChanges(live);
  const { connection, clock, hello } = live;
  useTicks(500, connection.state === 'lost');
  const text =
    connection.state === 'live' ? hello?.server_name ?? 'connected'
    : connection.state === 'trying' ? 'Connecting'
    : `No answer. Trying again in ${duration(Math.max(0, connection.again - performance.now()))}`;
  return (
    <>
      {clock?.frozen && <a class="status frozen" href={href('clock')}>Clock frozen at {timeOfDay(clock.now)}</a>}
      <span class={`status ${connection.state}`} role="status" title={hello && `version ${hello.version}`}>
        <i class="dot" aria-hidden="true" />{connection.state === 'live' && <span class="unseen">Connected to </span>}{text}
      </span>
    </>
  );
}

function ThemeChoice() {
  const [theme, set] = useState<Theme>(chosen());
  return (
    <select aria-label="Colours" value={theme} onChange={(e) => { const next = e.currentTarget.value as Theme; set(next); choose(next); }}>
      <option value="system">System</option>
      <option value="light">Light</option>
      <option value="dark">Dark</option>
    </select>
  );
}

const KEYS: [string, string][] = [
  ['1 to 8', 'the views in their order'],
  ['/', 'search'],
  ['↑ ↓ Page Up, Page Down, Home, End', 'from message to message, in the list'],
  ['Esc', 'close the message'],
  ['p', 'pause and resume'],
  ['.', 'show the next message only'],
  ['f', 'follow the newest message'],
  ['?', 'this list'],
];

function Help({ close }: { close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current!.showModal(), []);
  return (
    <dialog ref={dialog} onClose={close} aria-labelledby="keys">
      <h2 id="keys">Keys</h2>
      <dl class="facts">{KEYS.map(([key, what]) => <><dt>{key}</dt><dd>{what}</dd></>)}</dl>
      <form method="dialog"><button class="primary">Close</button></form>
    </dialog>
  );
}
