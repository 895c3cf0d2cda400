/** What the development routes answer. */

/** A recorded message, as `live` sends it. */
export interface Recorded {
  number: number;
  /** Milliseconds since the epoch, by the clock of the server. */
  at: number;
  cause?: string;
  from: string;
  to: string;
  what: string;
  body: unknown;
}

/** The first event of `live`. */
export interface Hello {
  version: string;
  server_name: string;
  oldest: number;
  newest: number;
  clock: ClockState;
  /** Differs once the numbers of messages count from 1 again. */
  run: unknown;
}

export interface ClockState {
  now: number;
  frozen: boolean;
}

/** The body of a `Request`. */
export interface HttpRequest {
  method: string;
  path: string;
  query?: string;
  user?: string;
  device?: string;
  service?: string;
  body?: unknown;
  /** The size of the body, if only its beginning was kept. */
  cut?: number;
}

/** The body of an `Answer`. */
export interface HttpAnswer {
  status: number;
  micros: number;
  body?: unknown;
  cut?: number;
}

/** The body of an `Attempt` to send a transaction. */
export interface Attempt {
  service: string;
  transaction: number;
  attempt: number;
  at: number;
  outcome: string;
  path?: string;
  micros?: number;
  body: unknown;
}

export interface Fault {
  id: number;
  service?: string;
  endpoint?: string;
  fault: string | Record<string, number>;
  times?: number;
  probability?: number;
  requests: number;
  injected: number;
}

export interface Dialects {
  registration?: string[];
  used?: Record<string, Record<string, number>>;
  sent?: Record<string, number>;
}

export interface LedgerLine {
  kind: string;
  before: number;
  owed: number;
  delivered: number;
  dropped: Record<string, number>;
  waiting: number;
}

/** A registration file that cannot be used, and what holds in its place. */
export interface Problem {
  file: string;
  why: string;
  instead: string;
}

export interface Service {
  service: string;
  url: string | null;
  sender: 'idle' | 'sending' | 'waiting' | 'stopped';
  frozen: null | { transaction: number; bytes: number; holds: Record<string, number>; frozen_at: number };
  attempts: { transaction: number; attempt: number; at: number; outcome: string; micros?: number }[];
  next_retry_at: number | null;
  owed: { kind: string; count: number; oldest_at: number | null }[];
  ledger: LedgerLine[];
  balanced: boolean;
  dialects?: Dialects;
  problem?: Problem;
  faults: Fault[];
}

export interface Finding {
  severity: 'error' | 'warning' | 'note';
  code: string;
  what: string;
  advice?: string;
}

export interface Step {
  says: string;
  rule: string;
  /** The chapter of the book, relative to the book. */
  link: string;
  clause?: string;
  transaction?: number;
  attempt?: number;
  at?: number;
}

export interface Fate {
  what: string;
  service: string;
  verdict: string;
  steps: Step[];
}

export interface AutopsyDevice {
  user: string;
  device: string;
  known_keys: boolean;
  counts: Record<string, number>;
  claims: { at: number; by?: string; by_device?: string; algorithm: string; got: string }[];
  messages: {
    position: number;
    at: number | null;
    type: string;
    decided_by?: string;
    transaction?: number;
    acknowledged: boolean;
    deleted: boolean;
    attempts: number;
  }[];
  verdict: string;
  /** What is missing, or that nothing is, in one sentence. */
  missing: string;
  steps: Step[];
}

export interface Autopsy {
  event: string;
  sender: string;
  sender_device: string | null;
  session: string | null;
  room: string;
  at: number;
  devices: AutopsyDevice[];
}
