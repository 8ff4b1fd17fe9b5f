import type { Clock, Env, Timer } from '../../../shared/env.ts';
import { errorMessage } from '../../../shared/errors.ts';
import type { NoteOdd } from './odd-values.ts';

/** How a collector fares, for status and metrics. Times are of the injected clock, durations in milliseconds. */
export interface CollectorStatus {
  name: string;
  ok: boolean;
  lastOkMs: number | undefined;
  lastDurationMs: number | undefined;
  error: string | undefined;
  /** figures of the last reading that cannot be and were left out, by name, with what was read */
  odd?: Readonly<Record<string, string>>;
}

/** Odd figures of one reading that are kept, and names that are said in the log. */
const ODD_MAX = 16;
const SAID_MAX = 64;

/** A source of figures that runs on its own once started. It never throws: what goes wrong shows in `status`. */
export interface Collector<T> {
  readonly name: string;
  start(): void;
  stop(): void;
  /** The last value read, with the time of reading; kept when later readings fail, so look at its age. */
  latest(): { value: T; atMs: number } | undefined;
  status(): CollectorStatus;
}

/** Keeps a collector's status and last value, and logs when it begins to fail and when it recovers, not each time. */
export class CollectorRecord<T> {
  readonly name: string;
  private readonly env: Pick<Env, 'clock' | 'log'>;
  private last: { value: T; atMs: number; beganMs: number } | undefined;
  private ok = false;
  private durationMs: number | undefined;
  private error: string | undefined;
  private odd: Record<string, string> = {};
  private readonly said = new Set<string>();

  constructor(name: string, env: Pick<Env, 'clock' | 'log'>) {
    this.name = name;
    this.env = env;
  }

  /** A reading begins: what was odd in the last one may no longer be. */
  begin(): void {
    this.odd = {};
  }

  /** A figure of the reading cannot be: it is left out, and said once for each name. */
  noteOdd(name: string, text: string): void {
    if (Object.keys(this.odd).length < ODD_MAX) this.odd[name] = text;
    if (this.said.has(name) || this.said.size >= SAID_MAX) return;
    this.said.add(name);
    this.env.log.warn({ collector: this.name, name, value: text }, 'a figure that cannot be is left out');
  }

  succeed(value: T, durationMs: number): void {
    if (this.error !== undefined) this.env.log.info({ collector: this.name }, 'collector works again');
    const atMs = this.env.clock.nowMs();
    this.last = { value, atMs, beganMs: atMs - durationMs };
    this.ok = true;
    this.durationMs = durationMs;
    this.error = undefined;
  }

  fail(error: unknown, durationMs?: number): void {
    const text = errorMessage(error);
    if (this.error === undefined) this.env.log.warn({ collector: this.name, error: text }, 'collector fails');
    this.ok = false;
    this.error = text;
    this.durationMs = durationMs ?? this.durationMs;
  }

  latest(): { value: T; atMs: number; beganMs: number } | undefined {
    return this.last;
  }

  status(): CollectorStatus {
    return {
      name: this.name,
      ok: this.ok,
      lastOkMs: this.last?.atMs,
      lastDurationMs: this.durationMs,
      error: this.error,
      ...(Object.keys(this.odd).length > 0 ? { odd: this.odd } : {}),
    };
  }
}

/**
 * Collector that calls `read` (which tells `note` of figures that it leaves out) at once and then each period, one call
 * at a time. A tick during a call is skipped.
 */
export class PeriodicCollector<T> implements Collector<T> {
  readonly name: string;
  protected readonly clock: Clock;
  private readonly record: CollectorRecord<T>;
  private readonly periodMs: number;
  private readonly read: (note: NoteOdd) => Promise<T>;
  private timer: Timer | undefined;
  private reading: Promise<void> | undefined;

  constructor(name: string, periodMs: number, env: Pick<Env, 'clock' | 'log'>, read: (note: NoteOdd) => Promise<T>) {
    this.name = name;
    this.clock = env.clock;
    this.record = new CollectorRecord(name, env);
    this.periodMs = periodMs;
    this.read = read;
  }

  start(): void {
    if (this.timer) return;
    this.timer = this.clock.every(this.periodMs, () => void this.readNow());
    void this.readNow();
  }

  stop(): void {
    this.timer?.cancel();
    this.timer = undefined;
  }

  /** Reads now, or joins the reading under way; settles when it is done and never rejects. */
  readNow(): Promise<void> {
    this.reading ??= this.readOnce().finally(() => {
      this.reading = undefined;
    });
    return this.reading;
  }

  latest(): { value: T; atMs: number; beganMs: number } | undefined {
    return this.record.latest();
  }

  status(): CollectorStatus {
    return this.record.status();
  }

  private async readOnce(): Promise<void> {
    const startMs = this.clock.nowMs();
    try {
      this.record.begin();
      const value = await this.read((name, text) => this.record.noteOdd(name, text));
      this.record.succeed(value, this.clock.nowMs() - startMs);
    } catch (error) {
      this.record.fail(error, this.clock.nowMs() - startMs);
    }
  }
}
