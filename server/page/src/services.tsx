/** The services: for each what it is owed, what it was sent, and what can be done about it. */

import { useState } from 'preact/hooks';
import { ask } from './api';
import { Act, Chip, Empty, Problem, Table } from './bits';
import { bytes, count, duration, items, timeOfDay, words } from './format';
import { useAsked, useTicks } from './hooks';
import { live } from './live';
import { href } from './route';
import { Faults } from './faults';
import type { Dialects, Finding, LedgerLine, Problem as FileProblem, Service } from './types';

export function Services(props: { params: Record<string, string> }) {
  const { value, error, reload } = useAsked<Service[]>('services', 400);
  // A file that was never valid belongs to no service.
  const files = useAsked<Partial<FileProblem>[]>('appservices', 400).value?.filter((entry): entry is FileProblem => !!entry.file);
  const wanted = props.params.service;
  const all = value?.filter((s) => !wanted || s.service === wanted);
  return (
    <div class="page">
      <h1>Services</h1>
      <Problem text={error} />
      {files?.map((problem) => <Problem key={problem.file} text={problemText(problem)} />)}
      {value && value.length > 1 && (
        <nav class="picks" aria-label="Service">
          <a href={href('services')} aria-current={wanted ? undefined : 'true'}>All</a>
          {value.map(({ service }) => <a key={service} href={href('services', { service })} aria-current={wanted === service ? 'true' : undefined}>{service}</a>)}
        </nav>
      )}
      {all?.map((service) => <One key={service.service} service={service} reload={reload} />)}
      {value?.length === 0 && (
        <Empty title="No service is registered">
          <p>Copy a registration into the folder that the server printed when it started, <code>understudy-data/appservices</code> by default; <code>docker/registration.example.yaml</code> is one to begin with. It takes effect at once.</p>
        </Empty>
      )}
      {value && all?.length === 0 && value.length > 0 && <p class="muted">There is no service {wanted}. <a href={href('services')}>Show all</a></p>}
    </div>
  );
}

const STATES = {
  idle: ['good', 'idle'], sending: ['busy', 'sending'], waiting: ['bad', 'waiting to retry'], stopped: ['bad', 'stopped'],
} as const;

function One({ service: s, reload }: { service: Service; reload: () => Promise<void> }) {
  const [kind, text] = STATES[s.sender] ?? ['plain', s.sender];
  const post = (what: string, said: (answer: Record<string, unknown>) => string) => async () => {
    const answer = await ask<Record<string, unknown>>(`appservices/${encodeURIComponent(s.service)}/${what}`, {});
    await reload();
    return said(answer);
  };
  return (
    <section class="card" aria-labelledby={`service-${s.service}`}>
      <header>
        <h2 id={`service-${s.service}`}>{s.service}</h2>
        <Chip kind={kind}>{text}</Chip>
        <span class="muted">{s.url ?? 'no URL: nothing is sent'}</span>
        <span class="spring" />
        <a href={href('conversation', { service: s.service })}>Conversation</a>
        <a href={href('tracked', { filter: s.service })}>Device lists</a>
      </header>
      <Problem text={s.problem && problemText(s.problem)} />
      <div class="buttons">
        <Act label="Retry now" disabled={s.sender !== 'waiting'} kind="primary" run={post('retry', () => 'Sent again')} />
        <Act label="Resend the last" run={post('resend', (a) => `Transaction ${a.transaction}: ${a.outcome}`)} />
        <Act label="Ping" run={post('ping', (a) => `Answered after ${duration(Number(a.duration_ms))}`)} />
        <Doctor id={s.service} />
      </div>
      <div class="grid">
        <div>
          <h3>Queue</h3>
          <Queue service={s} />
          <h3>Frozen transaction</h3>
          <Frozen service={s} />
        </div>
        <div>
          <h3>Attempts</h3>
          {s.attempts.length ? (
            <Table
              label={`Attempts of ${s.service}`} rows={[...s.attempts].reverse()} rowClass={(a) => (acknowledged(a.outcome) ? '' : 'bad-row')}
              columns={[
                { title: 'Time', cell: (a) => timeOfDay(a.at) },
                { title: 'Transaction', cell: (a) => <a href={href('conversation', { q: String(a.transaction) })}>{a.transaction}</a> },
                { title: 'Attempt', cell: (a) => a.attempt, number: true },
                { title: 'Answer', cell: (a) => a.outcome },
                { title: 'Took', cell: (a) => (a.micros === undefined ? '' : duration(a.micros / 1000)), number: true },
              ]}
            />
          ) : <p class="muted">No transaction was sent since the server started.</p>}
        </div>
        <div class="wide">
          <h3>Ledger <Chip kind={s.balanced ? 'good' : 'bad'}>{s.balanced ? 'balanced' : 'does not balance'}</Chip></h3>
          <Ledger lines={s.ledger} service={s.service} />
        </div>
        <div>
          <h3>Names on the wire</h3>
          <Names dialects={s.dialects} service={s.service} />
        </div>
        <div>
          <h3>Faults</h3>
          <Faults service={s.service} faults={s.faults} reload={reload} />
        </div>
      </div>
    </section>
  );
}

const acknowledged = (outcome: string) => /^2\d\d$/.test(outcome);

const problemText = (p: FileProblem) => `${p.file}: ${p.why}; ${p.instead}`;

function Queue({ service: s }: { service: Service }) {
  const owed = s.owed.filter((line) => line.count > 0);
  if (!owed.length) return <p class="muted">Nothing waits.</p>;
  return (
    <Table
      label={`Queue of ${s.service}`} rows={owed}
      columns={[
        { title: 'Kind', cell: (o) => words(o.kind) },
        { title: 'Waiting', cell: (o) => o.count.toLocaleString('en'), number: true },
        { title: 'Oldest', cell: (o) => (o.oldest_at ? <Age since={o.oldest_at} /> : '') , number: true },
      ]}
    />
  );
}

function Age({ since }: { since: number }) {
  useTicks(1000);
  return <>{duration(Math.max(0, live.now() - since))}</>;
}

function Frozen({ service: s }: { service: Service }) {
  const retry = s.next_retry_at;
  if (!s.frozen) return <p class="muted">None: everything that was sent is acknowledged.</p>;
  const { transaction, bytes: size, holds, frozen_at } = s.frozen;
  const held = Object.entries(holds).map(([kind, n]) => items(n, kind)).join(', ');
  return (
    <>
      <dl class="facts">
        <dt>Transaction</dt><dd>{transaction}</dd>
        <dt>Holds</dt><dd>{held || 'nothing'}, {bytes(size)}</dd>
        <dt>Frozen</dt><dd>{timeOfDay(frozen_at)}, <Age since={frozen_at} /> ago</dd>
        {retry !== null && <><dt>Next attempt</dt><dd><Countdown to={retry} /></dd></>}
      </dl>
    </>
  );
}

/** The time until the next attempt, by the server's clock. */
function Countdown({ to }: { to: number }) {
  useTicks(200);
  const left = to - live.now();
  const frozen = live.clock?.frozen;
  if (left <= 0) return <span class="countdown">{frozen ? 'due' : 'now'}</span>;
  return (
    <span class="countdown" role="timer" aria-label="Next attempt in">
      in {duration(left)}{frozen ? ' of a clock that stands still' : ` (${timeOfDay(to)})`}
    </span>
  );
}

function Ledger({ lines, service }: { lines: LedgerLine[]; service: string }) {
  if (!lines.length) return <p class="muted">Nothing was owed since the server started.</p>;
  const dropped = (line: LedgerLine) => Object.values(line.dropped).reduce((sum, n) => sum + n, 0);
  const balances = (line: LedgerLine) => line.before + line.owed === line.delivered + dropped(line) + line.waiting;
  const n = (value: number) => value.toLocaleString('en');
  return (
    <Table
      label={`Ledger of ${service}`} rows={lines} rowClass={(line) => (balances(line) ? '' : 'bad-row')}
      columns={[
        { title: 'Kind', cell: (l) => words(l.kind) },
        { title: 'Waited at start', cell: (l) => n(l.before), number: true },
        { title: 'Owed since', cell: (l) => n(l.owed), number: true },
        { title: 'Delivered', cell: (l) => n(l.delivered), number: true },
        { title: 'Dropped', cell: (l) => n(dropped(l)), number: true },
        { title: 'Waiting', cell: (l) => n(l.waiting), number: true },
        { title: 'Reasons', cell: (l) => Object.entries(l.dropped).map(([why, k]) => `${n(k)} ${words(why)}`).join(', ') },
      ]}
    />
  );
}

function Names({ dialects, service }: { dialects?: Dialects; service: string }) {
  const used = Object.entries(dialects?.used ?? {}).flatMap(([what, names]) => Object.entries(names).map(([name, n]) => ({ what, name, n })));
  const sent = Object.entries(dialects?.sent ?? {}).map(([name, n]) => ({ what: 'sent to it', name, n }));
  const registration = (dialects?.registration ?? []).map((name) => ({ what: 'registration', name, n: undefined }));
  const rows = [...registration, ...used, ...sent];
  if (!rows.length) return <p class="muted">The service has used no name yet, and was sent none.</p>;
  return (
    <Table
      label={`Names that ${service} uses and is sent`} rows={rows}
      columns={[
        { title: 'Where', cell: (r) => words(r.what) },
        { title: 'Name', cell: (r) => <code>{r.name}</code> },
        { title: 'Times', cell: (r) => r.n ?? '', number: true },
      ]}
    />
  );
}

/** The doctor's findings about an active registration. */
function Doctor({ id }: { id: string }) {
  const [findings, set] = useState<Finding[]>();
  const run = async () => {
    const report = await ask<{ findings: Finding[]; errors: number; warnings: number }>('doctor', { id });
    set(report.findings);
    return report.findings.length ? `${count(report.errors, 'error')}, ${count(report.warnings, 'warning')}` : 'Nothing found';
  };
  return (
    <>
      <Act label="Doctor" run={run} />
      {findings && findings.length > 0 && (
        <ul class="findings" aria-label={`Findings of the doctor about ${id}`}>
          {findings.map((f) => (
            <li key={f.code + f.what}>
              <Chip kind={f.severity === 'error' ? 'bad' : f.severity === 'warning' ? 'busy' : 'plain'}>{f.severity}</Chip> {f.what}
              {f.advice && <span class="muted"> {f.advice}</span>}
            </li>
          ))}
        </ul>
      )}
    </>
  );
}
