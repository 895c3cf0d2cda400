/** The autopsy of a message that cannot be decrypted: for each device of the recipient, which keys were sent to it. */

import { Chip, Table } from './bits';
import { dateAndTime, timeOfDay } from './format';
import { href } from './route';
import { Steps } from './steps';
import type { Autopsy, AutopsyDevice } from './types';

export function AutopsyResult({ autopsy }: { autopsy: Autopsy }) {
  const { event, sender, sender_device, session, room, at, devices } = autopsy;
  return (
    <section class="result" aria-label="Result" aria-live="polite">
      <h2>Which devices were sent the key</h2>
      <dl class="facts">
        <dt>Event</dt><dd><code>{event}</code></dd>
        <dt>Sent</dt><dd>{dateAndTime(at)} by {sender}{sender_device && ` on ${sender_device}`}</dd>
        {session && <><dt>Megolm session</dt><dd><code>{session}</code></dd></>}
        <dt>Room</dt><dd><code>{room}</code></dd>
      </dl>
      {devices.length === 0 && <p>The recipient has no device, so no key could be sent to it.</p>}
      {devices.map((device) => <Device key={`${device.user} ${device.device}`} device={device} />)}
    </section>
  );
}

function Device({ device: d }: { device: AutopsyDevice }) {
  const counts = Object.entries(d.counts).map(([algorithm, n]) => `${n} ${algorithm}`);
  const arrived = d.verdict === 'delivered';
  return (
    <article class="device">
      <h3>{d.user} on {d.device} <Chip kind={arrived ? 'good' : 'bad'}>{d.verdict}</Chip></h3>
      <p class="missing">{d.missing}</p>
      <dl class="facts">
        <dt>Device keys</dt><dd>{d.known_keys ? 'uploaded' : 'not uploaded'}</dd>
        <dt>One-time keys left</dt><dd>{counts.join(', ') || 'none'}</dd>
      </dl>
      {d.claims.length > 0 && (
        <Table
          label={`Claims of keys of ${d.device}`} rows={d.claims}
          columns={[
            { title: 'Claimed', cell: (c) => timeOfDay(c.at) },
            { title: 'By', cell: (c) => (c.by ? `${c.by}${c.by_device ? ` on ${c.by_device}` : ''}` : <span class="muted">no longer recorded</span>) },
            { title: 'Algorithm', cell: (c) => c.algorithm },
            { title: 'Got', cell: (c) => c.got },
          ]}
        />
      )}
      {d.messages.length ? (
        <Table
          label={`Messages to ${d.user} on ${d.device}`} rows={d.messages}
          columns={[
            { title: 'Sent', cell: (m) => (m.at ? timeOfDay(m.at) : 'before the start') },
            { title: 'Position', cell: (m) => m.position, number: true },
            { title: 'Type', cell: (m) => m.type },
            { title: 'Decided by', cell: (m) => m.decided_by ?? 'the device itself' },
            { title: 'Transaction', cell: (m) => (m.transaction ? <a href={href('conversation', { q: m.transaction })}>{m.transaction}</a> : '') },
            { title: 'Attempts', cell: (m) => m.attempts, number: true },
            { title: 'Acknowledged', cell: (m) => (m.deleted ? 'deleted before' : m.acknowledged ? 'yes' : 'no') },
          ]}
        />
      ) : <p class="muted">No to-device message to this device that can be the room key is recorded.</p>}
      <Steps steps={d.steps} />
    </article>
  );
}
