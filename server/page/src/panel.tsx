/** Everything about one message: what it says, the code behind it, its bytes, and ways to use it elsewhere. */

import { useMemo, useState } from 'preact/hooks';
import { ask } from './api';
import { Copy, Tree } from './bits';
import { asCurl, onTheWire } from './curl';
import { bytes, dateAndTime } from './format';
import { bytesOf, isObject, memberText } from './json';
import { live } from './live';
import { bodyOf, label, laneName, type Message } from './message';
import { explanations } from './mentions';
import { href } from './route';
import { behind } from './rules';
import { asStep } from './scenario';
import type { HttpRequest, Service } from './types';

/** The URLs of the services, for commands that send a transaction again. */
const urls = new Map<string, string>();
export async function learnUrls(): Promise<void> {
  for (const { service, url } of await ask<Service[]>('services')) if (url) urls.set(service, url);
}

type Tab = 'tree' | 'text' | 'wire';

export function Panel(props: { message: Message; select: (number: number | undefined) => void; only: (cause: string) => void }) {
  const { message, select, only } = props;
  const [tab, setTab] = useState<Tab>('tree');
  const [, redraw] = useState(0);
  useMemo(() => {
    if (message.what === 'Attempt') learnUrls().then(() => redraw((n) => n + 1), () => undefined);
  }, [message]);
  const request = message.from === 'client' ? message : message.request;
  const answer = message.from === 'client' ? live.trace.answerTo(message) : undefined;
  const { code, wire, curl, step } = useMemo(() => {
    const path = request && bodyOf<HttpRequest>(request).path;
    const names = { server: live.hello?.server_name ?? '', rooms: [...live.trace.facets.rooms] };
    return {
      code: behind(message, path),
      wire: onTheWire(message),
      curl: asCurl(message, location.origin, (service) => urls.get(service)),
      step: asStep(message, answer, names),
    };
  }, [message, answer, urls.size]);
  const body = useMemo(() => bodyOf<unknown>(message), [message]);
  const tabs: [Tab, string][] = [['tree', 'Tree'], ['text', 'JSON'], ...(wire ? [['wire', 'Wire'] as [Tab, string]] : [])];
  return (
    <aside class="panel" aria-label={`Message ${message.number}`}>
      <header>
        <h2>{message.what}</h2>
        <button type="button" class="quiet" onClick={() => select(undefined)} aria-label="Close" title="Esc">×</button>
      </header>
      <p class="says">{label(message)}</p>
      <dl class="facts">
        <dt>Message</dt>
        <dd>{message.number}, {dateAndTime(message.at)}</dd>
        <dt>From, to</dt>
        <dd>{laneName(message.start).filter(Boolean).join(' ')} → {laneName(message.end).filter(Boolean).join(' ')}</dd>
        {message.cause && (
          <>
            <dt>Caused by</dt>
            <dd>
              {request && request !== message ? (
                <button type="button" class="link" onClick={() => select(request.number)}>{label(request)}</button>
              ) : request === message ? 'a client' : message.cause}{' '}
              <button type="button" class="link" onClick={() => only(message.cause)}>show only this request</button>
            </dd>
          </>
        )}
        {code && (
          <>
            <dt>Handled in</dt>
            <dd><code>{code.handler}</code></dd>
            {code.rule && <><dt>Rule</dt><dd><code>{code.rule}</code></dd></>}
            {code.chapter && <><dt>Book</dt><dd><code>{code.chapter}</code></dd></>}
          </>
        )}
        {wire && <><dt>On the wire</dt><dd>{bytes(bytesOf(wire.body))} of body{wire.note && `. ${wire.note}`}</dd></>}
      </dl>
      <Explanations message={message} />
      <div class="actions">
        {curl && <Copy label="Copy as curl" text={() => curl.text} disabled={curl.missing} />}
        {(step || message.from === 'client') && (
          <Copy label="Copy as scenario step" text={() => step ?? ''} disabled={step ? undefined : 'The server kept only the beginning of the body.'} />
        )}
        <Copy label="Copy JSON" text={() => memberText(message.raw, 'body') ?? ''} />
      </div>
      <div class="tabs" role="tablist" aria-label="Content">
        {tabs.map(([name, title]) => (
          <button key={name} type="button" role="tab" id={`tab-${name}`} aria-selected={tab === name} aria-controls="content" onClick={() => setTab(name)}>{title}</button>
        ))}
      </div>
      <div id="content" class="content" role="tabpanel" aria-labelledby={`tab-${tab}`} tabIndex={0}>
        {tab === 'tree' && (isObject(body) || Array.isArray(body) ? <Tree value={body} /> : <Tree name="body" value={body} />)}
        {tab === 'text' && <pre>{JSON.stringify(body, null, 2)}</pre>}
        {tab === 'wire' && wire && <pre>{wire.head}{'\n\n'}{wire.body}</pre>}
      </div>
    </aside>
  );
}

/** Links to what happened to the things that the message names. */
function Explanations({ message }: { message: Message }) {
  const found = useMemo(() => explanations(message), [message]);
  if (!found.length) return null;
  return (
    <nav class="explanations" aria-label="Explain">
      <span class="muted">Explain</span>
      {found.map(({ title, params }) => <a key={title} href={href('explain', params)}>{title}</a>)}
    </nav>
  );
}
