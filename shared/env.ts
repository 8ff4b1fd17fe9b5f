import { pino, type Logger } from 'pino';
import { LogLines } from './log-lines.ts';

/** A pending timer; `cancel` is idempotent. */
export interface Timer {
  cancel(): void;
}

/**
 * Time as the code sees it. `nowMs` is monotonic, with sub-millisecond resolution and an arbitrary origin, for
 * durations and ages; `wallMs` is Unix time for records that leave the process. Live code uses `realClock`; tests and
 * simulations give their own.
 */
export interface Clock {
  nowMs(): number;
  wallMs(): number;
  /** Calls `fn` once after `delayMs`. The timer does not keep the process alive. */
  after(delayMs: number, fn: () => void): Timer;
  /** Calls `fn` every `periodMs` until cancelled. The timer does not keep the process alive. */
  every(periodMs: number, fn: () => void): Timer;
}

/** Uniform draw from [0, 1). */
export type Rng = () => number;

export type Log = Logger;

export interface Env {
  clock: Clock;
  rng: Rng;
  log: Log;
}

export const realClock: Clock = {
  nowMs: () => performance.now(),
  wallMs: () => Date.now(),
  after(delayMs, fn) {
    const timer = setTimeout(fn, delayMs);
    timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
  every(periodMs, fn) {
    const timer = setInterval(fn, periodMs);
    timer.unref();
    return { cancel: () => clearInterval(timer) };
  },
};

/** Seeded generator (mulberry32, public domain, Tommy Ettinger): the same seed gives the same draws. */
export function seededRng(seed: number): Rng {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** A logger on standard error (JSON lines), named after its process. */
export function makeLog(name: string, level: string): Log {
  return pino({ name, level, base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime }, new LogLines(2));
}

/** A logger that drops everything, for tests and simulations. */
export const silentLog: Log = pino({ level: 'silent' });
