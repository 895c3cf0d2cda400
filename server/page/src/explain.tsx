/** What happened to a thing and why: forms, and the answers of the server rule by rule. */

import { useEffect, useState } from 'preact/hooks';
import { query } from './api';
import { AutopsyResult } from './autopsy';
import { Chip, Problem } from './bits';
import { useAsked } from './hooks';
import { go, href } from './route';
import { Steps } from './steps';
import type { Autopsy, Fate, Service } from './types';

interface Kind {
  title: string;
  /** Name, label and an example of each field. A field that may stay empty says so. */
  fields: [name: string, label: string, example: string][];
  optional?: string[];
  service: boolean;
  hint: string;
}

const KINDS: Record<string, Kind> = {
  event: {
    title: 'Event', service: true, fields: [['event', 'Event', '$…']],
    hint: 'Whether the service was interested in an event of a room, and in which transaction it was sent.',
  },
  to_device: {
    title: 'To-device message', service: true, fields: [['to_device', 'Position or message id', '1234']],
    hint: 'Which rule decided over the message, and whether it is acknowledged. Its position is in the view Inboxes.',
  },
  devices: {
    title: 'Device list', service: true, fields: [['user', 'User', '@alice:localhost']],
    hint: 'Whether the service tracks the devices of the user, and what it was sent about them.',
  },
  keys: {
    title: 'Keys', service: true, fields: [['user', 'User', '@irc_bob:localhost'], ['device', 'Device', 'GHOST']],
    hint: 'The keys of a device, and what the service was sent about their counts.',
  },
  autopsy: {
    title: 'Undecryptable message', service: false,
    fields: [['event', 'Event', '$…'], ['session', 'or Megolm session id', ''], ['user', 'Recipient', '@irc_bob:localhost'], ['device', 'Device', 'all']],
    optional: ['event', 'session', 'device'],
    hint: 'The recipient that cannot decrypt: which of its devices were sent a key, in which message, and what is missing. The server sees to which device a key was sent, not what is in it.',
  },
};

export function Explain({ params }: { params: Record<string, string> }) {
  const kind = params.kind && KINDS[params.kind] ? params.kind : 'event';
  const { fields, optional = [], service, hint } = KINDS[kind]!;
  const services = useAsked<Service[]>('services');
  const ids = services.value?.map((s) => s.service) ?? [];
  const [values, setValues] = useState(params);
  useEffect(() => setValues(params), [JSON.stringify(params)]);
  const set = (name: string, value: string) => setValues({ ...values, [name]: value });
  const chosen = values.service || ids[0] || '';
  const wanted = Object.fromEntries(fields.map(([name]) => [name, params[name] ?? '']));
  const complete = fields.every(([name]) => optional.includes(name) || wanted[name]) && (kind !== 'autopsy' || !!(wanted.event || wanted.session));
  const from = params.service || ids[0];
  const path = !complete || (service && !from) ? undefined : kind === 'autopsy' ? `autopsy${query(wanted)}` : `fate${query({ service: from, ...wanted })}`;
  const submit = (event: Event) => {
    event.preventDefault();
    const now = Object.fromEntries(fields.map(([name]) => [name, (values[name] ?? '').trim()]));
    go('explain', { kind, ...(service ? { service: chosen } : {}), ...now });
  };
  return (
    <div class="page">
      <h1>Explain</h1>
      <nav class="picks" aria-label="What to explain">
        {Object.entries(KINDS).map(([name, { title }]) => (
          <a key={name} href={href('explain', { kind: name, service: params.service })} aria-current={name === kind ? 'true' : undefined}>{title}</a>
        ))}
      </nav>
      <p class="muted lead">{hint}</p>
      <form class="ask" onSubmit={submit} aria-label="Explain">
        {fields.map(([name, label, example]) => (
          <label key={name}>
            <span>{label}</span>
            <input name={name} value={values[name] ?? ''} placeholder={example} required={!optional.includes(name)} spellcheck={false} autocomplete="off" onInput={(e) => set(name, e.currentTarget.value)} />
          </label>
        ))}
        {service && (
          <label>
            <span>Service</span>
            <select name="service" value={chosen} onChange={(e) => set('service', e.currentTarget.value)}>
              {ids.length ? ids.map((id) => <option key={id}>{id}</option>) : <option value="">no service is registered</option>}
            </select>
          </label>
        )}
        <button type="submit" class="primary">Explain</button>
      </form>
      {path && <Result key={path} path={path} autopsy={kind === 'autopsy'} />}
      {!path && <p class="muted">Or choose a message in the <a href={href('conversation')}>conversation</a>: its panel links here.</p>}
    </div>
  );
}

function Result({ path, autopsy }: { path: string; autopsy: boolean }) {
  const { value, error } = useAsked<Fate | Autopsy>(path, 1000);
  if (error && !value) return <Problem text={error} />;
  if (!value) return <p class="muted" role="status">Asking the server</p>;
  return autopsy ? <AutopsyResult autopsy={value as Autopsy} /> : <FateResult fate={value as Fate} />;
}

function FateResult({ fate }: { fate: Fate }) {
  const kind = fate.verdict === 'delivered' ? 'good' : fate.verdict === 'waiting' ? 'busy' : fate.verdict === 'dropped' ? 'bad' : 'plain';
  return (
    <section class="result" aria-label="Result" aria-live="polite">
      <h2><Chip kind={kind}>{fate.verdict}</Chip> {fate.what}</h2>
      {fate.steps.length ? (
        <Steps steps={fate.steps} />
      ) : <p class="muted">The server has nothing more to say: neither the database nor the recorded messages have it.</p>}
    </section>
  );
}
