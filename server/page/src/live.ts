/** The connection to the server: its messages, its clock, and whether it answers. */

import { Trace } from './trace';
import type { ClockState, Hello } from './types';

/** `trying` until the first answer; `lost` while the page waits before it tries again. */
export type Connection = { state: 'trying' } | { state: 'live' } | { state: 'lost'; again: number };

const WAITS = [1000, 2000, 4000, 8000];

export class Live {
  trace = new Trace();
  hello: Hello | undefined;
  connection: Connection = { state: 'trying' };
  clock: ClockState | undefined;
  /** When the clock of the server was read, by the monotonic clock of the page. */
  private read = 0;
  private failures = 0;
  private source: EventSource | undefined;
  private timer = 0;
  private listeners = new Set<() => void>();
  private greeters = new Set<() => void>();

  /** Call this whenever the server answers for the first time, or again. */
  onHello(listener: () => void): () => void {
    this.greeters.add(listener);
    return () => this.greeters.delete(listener);
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** The time of the server's clock now; the browser's before the server has answered. */
  now(): number {
    if (!this.clock) return Date.now();
    return this.clock.now + (this.clock.frozen ? 0 : performance.now() - this.read);
  }

  setClock(clock: ClockState): void {
    this.clock = clock;
    this.read = performance.now();
    this.changed();
  }

  connect(): void {
    clearTimeout(this.timer);
    this.source?.close();
    const source = new EventSource(`live?after=${this.trace.newest}`);
    this.source = source;
    source.addEventListener('hello', (event) => this.greeted(JSON.parse(event.data) as Hello));
    source.addEventListener('gap', (event) => {
      this.trace.lost = Math.max(this.trace.lost, (JSON.parse(event.data) as { up_to: number }).up_to);
    });
    source.onmessage = (event) => this.trace.add(event.data as string);
    source.onerror = () => this.broken();
  }

  private greeted(hello: Hello): void {
    this.failures = 0;
    const restarted = this.hello !== undefined && hello.run !== this.hello.run;
    this.hello = hello;
    this.connection = { state: 'live' };
    this.setClock(hello.clock);
    for (const greeter of this.greeters) greeter();
    if (restarted) {
      // The numbers begin again, so what the page has belongs to another run.
      this.trace.clear();
      this.connect();
    }
  }

  private broken(): void {
    this.source?.close();
    const wait = WAITS[Math.min(this.failures++, WAITS.length - 1)]!;
    this.connection = { state: 'lost', again: performance.now() + wait };
    this.timer = window.setTimeout(() => this.connect(), wait);
    this.changed();
  }

  private changed(): void {
    for (const listener of this.listeners) listener();
  }
}

export const live = new Live();
