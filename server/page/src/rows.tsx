/** The rows of the conversation. Only those in sight are in the document, so 100,000 cost no more than forty. */

import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { timeOfDay } from './format';
import { useWidth } from './hooks';
import { isClient, isService, label, laneName, ordered, type Level, type Message } from './message';
import type { Trace } from './trace';

const ROW = 30;
/** The width of the number and the time before the lanes. */
const BEFORE = 156;
const NARROWEST = 64;
/** Rows beyond the edges, so that a quick scroll shows no gap. */
const BEYOND = 12;
/** A label needs so much room before it is written towards the left. */
const ROOM = 300;

interface Props {
  trace: Trace;
  level: Level;
  follow: boolean;
  setFollow: (follow: boolean) => void;
  selected: Message | undefined;
  select: (number: number) => void;
}

export function Rows({ trace, level, follow, setFollow, selected, select }: Props) {
  const { element, width, height } = useWidth<HTMLDivElement>();
  const [top, setTop] = useState(0);
  const frame = useRef(0);
  const rows = trace.shown;
  // On the wire the server is one lane.
  const lane = (name: string) => (level > 0 || isClient(name) || isService(name) ? name : 'server');
  const lanes = ordered(new Set([...trace.lanes].map(lane)));
  const laneWidth = Math.max(NARROWEST, (width - BEFORE - 8) / Math.max(lanes.length, 1));
  const x = (name: string) => BEFORE + (lanes.indexOf(lane(name)) + 0.5) * laneWidth;
  const whole = Math.max(width, BEFORE + lanes.length * laneWidth);
  const body = Math.max(0, height - HEAD);
  const first = Math.max(0, Math.floor(top / ROW) - BEYOND);
  const last = Math.min(rows.length, Math.ceil((top + body) / ROW) + BEYOND);
  const chosen = selected ? place(rows, selected.number) : -1;

  useLayoutEffect(() => {
    if (!follow) return;
    const list = element.current!;
    const end = list.scrollHeight - list.clientHeight;
    if (Math.abs(list.scrollTop - end) > 1) list.scrollTop = end;
    setTop(list.scrollTop);
  }, [follow, rows.length, height]);

  const reveal = (index: number) => {
    const list = element.current!;
    const room = list.clientHeight - HEAD;
    if (index * ROW < list.scrollTop) list.scrollTop = index * ROW;
    else if ((index + 1) * ROW > list.scrollTop + room) list.scrollTop = (index + 1) * ROW - room;
  };
  // A link to a message leads to its row, once the row is there.
  useEffect(() => {
    if (chosen >= 0) reveal(chosen);
  }, [selected?.number, chosen >= 0, height]);

  const scrolled = () => {
    const list = element.current!;
    const distance = list.scrollHeight - list.clientHeight - list.scrollTop;
    if (follow && distance > ROW * 3) setFollow(false);
    cancelAnimationFrame(frame.current);
    frame.current = requestAnimationFrame(() => setTop(list.scrollTop));
  };
  const pressed = (event: KeyboardEvent) => {
    const page = Math.max(1, Math.floor(body / ROW) - 1);
    const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -rows.length, End: rows.length };
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const from = chosen >= 0 ? chosen : step > 0 ? Math.floor(top / ROW) - 1 : Math.ceil((top + body) / ROW);
    const to = Math.min(rows.length - 1, Math.max(0, from + step));
    select(rows[to]!.number);
  };

  return (
    <div
      class="rows" ref={element} role="listbox" tabIndex={0} aria-label="Messages" onScroll={scrolled} onKeyDown={pressed}
      aria-activedescendant={chosen >= first && chosen < last ? `m${selected!.number}` : undefined}
    >
      <div class="lanes" role="presentation" style={{ width: `${whole}px` }}>
        <span class="lane-gutter">{trace.lost > 0 && <span title={`The server no longer has the messages up to ${trace.lost}.`}>from {trace.lost + 1}</span>}</span>
        {lanes.map((name) => {
          const [title, under] = laneName(name);
          return (
            <span key={name} class={`lane ${isService(name) ? 'bridge' : isClient(name) ? 'person' : ''}`} style={{ left: `${BEFORE + lanes.indexOf(name) * laneWidth}px`, width: `${laneWidth}px` }} title={name}>
              <b>{title}</b>
              {under && <small>{under}</small>}
            </span>
          );
        })}
      </div>
      <div class="sizer" role="presentation" style={{ height: `${rows.length * ROW}px`, width: `${whole}px` }}>
        {lanes.map((name) => <i key={name} class="line" style={{ left: `${x(name)}px` }} />)}
        {rows.slice(first, last).map((m, i) => {
          const index = first + i;
          const before = rows[index - 1];
          const kind = `${m.failed ? ' failed' : ''}${m.level === 0 ? ' wire' : ''}${before && before.cause !== m.cause ? ' other' : ''}`;
          const related = selected && selected.cause && selected.cause === m.cause ? ' related' : '';
          return (
            <div
              key={m.number} id={`m${m.number}`} role="option" aria-selected={m === selected} aria-setsize={rows.length} aria-posinset={index + 1}
              class={`row${kind}${related}`} style={{ top: `${index * ROW}px` }} onClick={() => select(m.number)}
            >
              <span class="no">{m.number}</span>
              <span class="at">{timeOfDay(m.at)}</span>
              <span class="unseen">{laneName(lane(m.start)).join(' ')} to {laneName(lane(m.end)).join(' ')}:</span>
              <Arrow from={x(m.start)} to={x(m.end)} text={label(m)} whole={whole} />
            </div>
          );
        })}
      </div>
    </div>
  );
}

const HEAD = 44;

function Arrow({ from, to, text, whole }: { from: number; to: number; text: string; whole: number }) {
  const left = Math.min(from, to);
  const right = Math.max(from, to);
  // Towards the left only where the right edge is near.
  const backwards = whole - left < ROOM && right > ROOM;
  const at = backwards ? { right: `${whole - right + 7}px`, maxWidth: `${right - BEFORE - 8}px` } : { left: `${left + 7}px`, maxWidth: `${whole - left - 12}px` };
  return (
    <>
      <span class={`arrow ${to > from ? 'right' : to < from ? 'left' : 'self'}`} style={{ left: `${left}px`, width: `${right - left}px` }} />
      <span class="label" style={at}>{text}</span>
    </>
  );
}

/** The index of a message among those that are shown; -1 if it is hidden. */
function place(rows: Message[], number: number): number {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (rows[mid]!.number < number) low = mid + 1;
    else high = mid;
  }
  return rows[low]?.number === number ? low : -1;
}
