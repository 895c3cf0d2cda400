/** The clock of the server: freeze it, let it run, advance it. */

import { useState } from 'preact/hooks';
import { ask } from './api';
import { Act, Chip } from './bits';
import { dateAndTime } from './format';
import { useChanges, useTicks } from './hooks';
import { live } from './live';
import type { ClockState } from './types';

const STEPS: [string, number][] = [
  ['1 second', 1000], ['10 seconds', 10_000], ['1 minute', 60_000], ['5 minutes', 300_000], ['1 hour', 3_600_000], ['1 day', 86_400_000],
];
const UNITS: [string, number][] = [['milliseconds', 1], ['seconds', 1000], ['minutes', 60_000], ['hours', 3_600_000]];

async function post(what: string, body: unknown = {}): Promise<string> {
  live.setClock(await ask<ClockState>(`clock/${what}`, body));
  return '';
}

export function Clock() {
  useChanges(live);
  useTicks(100, !live.clock?.frozen);
  const [amount, setAmount] = useState(30);
  const [unit, setUnit] = useState(1000);
  const frozen = live.clock?.frozen;
  return (
    <div class="page">
      <h1>Clock</h1>
      <p class="muted lead">Back-offs, time-outs, delays and timestamps follow this clock. What was due in the time that it is advanced by happens at once, such as the next attempt to send a transaction.</p>
      {live.clock && (
        <p class="time"><time>{dateAndTime(live.now())}</time> <Chip kind={frozen ? 'busy' : 'good'}>{frozen ? 'frozen' : 'running'}</Chip></p>
      )}
      <div class="buttons">
        <Act label="Freeze" disabled={frozen} run={() => post('freeze')} />
        <Act label="Run" disabled={frozen === false} run={() => post('run')} />
      </div>
      <h2>Advance by</h2>
      <div class="buttons">
        {STEPS.map(([title, ms]) => <Act key={title} label={title} run={() => post('advance', { ms })} />)}
      </div>
      <form class="inline" aria-label="Advance the clock" onSubmit={(e) => e.preventDefault()}>
        <input type="number" min="1" aria-label="Amount" value={amount} onInput={(e) => setAmount(Number(e.currentTarget.value))} />
        <select aria-label="Unit" value={unit} onChange={(e) => setUnit(Number(e.currentTarget.value))}>
          {UNITS.map(([title, ms]) => <option key={title} value={ms}>{title}</option>)}
        </select>
        <Act label="Advance" run={() => post('advance', { ms: Math.round(amount * unit) })} />
      </form>
    </div>
  );
}
