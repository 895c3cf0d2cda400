/** The faults of requests to a service: those in force, and a form for another. */

import { useState } from 'preact/hooks';
import { ask } from './api';
import { Act } from './bits';
import { count } from './format';
import type { Fault } from './types';

const KINDS = [
  ['status', 'answers with status'],
  ['refuse', 'refuses the connection'],
  ['delay_ms', 'comes late, in ms'],
  ['cut_before', 'is cut before the service has read it'],
  ['cut_after', 'is cut after the service has answered'],
] as const;

const ENDPOINTS = ['transactions', 'ping', 'users', 'rooms', 'thirdparty', 'keys'];

function inWords(fault: Fault): string {
  const [kind, value] = typeof fault.fault === 'string' ? [fault.fault, undefined] : Object.entries(fault.fault)[0]!;
  const name = KINDS.find(([k]) => k === kind)?.[1] ?? kind;
  return `${fault.endpoint ?? 'every request'} ${name}${value === undefined ? '' : ` ${value}`}`;
}

export function Faults(props: { service: string; faults: Fault[]; reload: () => Promise<void> }) {
  const { service, faults, reload } = props;
  const [kind, setKind] = useState<string>('status');
  const [value, setValue] = useState(500);
  const [endpoint, setEndpoint] = useState('transactions');
  const [times, setTimes] = useState('');
  const takesValue = kind === 'status' || kind === 'delay_ms';
  const add = async () => {
    const fault = takesValue ? { [kind]: value } : kind;
    await ask('faults', { service, endpoint: endpoint || undefined, fault, times: times ? Number(times) : undefined });
    await reload();
    return 'In force';
  };
  const remove = (id: number) => async () => {
    await ask('faults/clear', { id });
    await reload();
    return '';
  };
  return (
    <>
      {faults.length ? (
        <ul class="faults" aria-label={`Faults of ${service}`}>
          {faults.map((fault) => (
            <li key={fault.id}>
              <span>{inWords(fault)}{fault.times ? `, ${count(fault.times, 'time')}` : ''}{fault.service ? '' : ' (every service)'}</span>
              <span class="muted">{fault.injected} of {count(fault.requests, 'request')}</span>
              <Act label="Off" run={remove(fault.id)} />
            </li>
          ))}
        </ul>
      ) : <p class="muted">None: requests to the service are sent as they are.</p>}
      <form class="inline" aria-label={`Add a fault to ${service}`} onSubmit={(e) => e.preventDefault()}>
        <select aria-label="Endpoint" value={endpoint} onChange={(e) => setEndpoint(e.currentTarget.value)}>
          <option value="">every request</option>
          {ENDPOINTS.map((name) => <option key={name} value={name}>{name}</option>)}
        </select>
        <select aria-label="Fault" value={kind} onChange={(e) => setKind(e.currentTarget.value)}>
          {KINDS.map(([name, title]) => <option key={name} value={name}>{title}</option>)}
        </select>
        {takesValue && <input aria-label="Value" type="number" min="0" value={value} onInput={(e) => setValue(Number(e.currentTarget.value))} />}
        <input aria-label="How many times" type="number" min="1" placeholder="always" value={times} onInput={(e) => setTimes(e.currentTarget.value)} />
        <Act label="Add fault" run={add} />
      </form>
    </>
  );
}
