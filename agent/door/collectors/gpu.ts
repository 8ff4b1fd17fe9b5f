import { spawn, type ChildProcess, type ChildProcessByStdio } from 'node:child_process';
import type { Readable } from 'node:stream';
import type { Env, Timer } from '../../../shared/env.ts';
import { errorMessage } from '../../../shared/errors.ts';
import { type NoteOdd, shareOf } from './odd-values.ts';
import { CollectorRecord, type Collector, type CollectorStatus } from './collector.ts';

/**
 * One GPU now. Ratios are 0 to 1 (power may exceed its limit for a moment); undefined where the card does not tell
 * ("[N/A]").
 */
export interface GpuSample {
  index: number;
  uuid: string;
  name: string;
  /** Share of the last period in which a kernel ran. */
  utilRatio: number | undefined;
  /** Share of the last period in which memory was read or written. */
  memUtilRatio: number | undefined;
  memUsedRatio: number | undefined;
  memTotalMb: number | undefined;
  smClockRatio: number | undefined;
  powerRatio: number | undefined;
  temperatureC: number | undefined;
}

export interface GpuCollectorOptions {
  nvidiaSmiPath: string;
  periodMs: number;
  env: Pick<Env, 'clock' | 'log'>;
}

const FIELDS = [
  'index',
  'uuid',
  'name',
  'utilization.gpu',
  'utilization.memory',
  'memory.used',
  'memory.total',
  'clocks.sm',
  'clocks.max.sm',
  'power.draw',
  'power.limit',
  'temperature.gpu',
] as const;
const FIRST_BACKOFF_MS = 1000;
const MAX_BACKOFF_MS = 60_000;
/** Silence after which the child counts as hung, and a GPU that no longer appears as gone. */
const SILENCE_PERIODS = 10;
const MIN_SILENCE_MS = 5000;
const MAX_LINE_LENGTH = 4096;
/** Clock and power may exceed their limits for a moment. */
const MOST_OVER_LIMIT = 2;
const MAX_TEMPERATURE_C = 1000;

/**
 * GPU samples from one long-lived `nvidia-smi -lms` child: no process start per sample. A child that ends or falls
 * silent is started anew after a pause that doubles from 1 s to a minute; without an nvidia-smi the pause is a minute
 * at once, and the status says why.
 */
export class GpuCollector implements Collector<GpuSample[]> {
  readonly name = 'gpu';
  private readonly options: GpuCollectorOptions;
  private readonly record: CollectorRecord<GpuSample[]>;
  private readonly rows = new Map<number, { sample: GpuSample; atMs: number }>();
  private readonly silenceMs: number;
  private child: ChildProcess | undefined;
  private running = false;
  private restart: Timer | undefined;
  private watchdog: Timer | undefined;
  private backoffMs = FIRST_BACKOFF_MS;
  private lastRowMs = 0;
  private partialLine = '';
  private complaint = '';

  constructor(options: GpuCollectorOptions) {
    this.options = options;
    this.record = new CollectorRecord(this.name, options.env);
    this.silenceMs = Math.max(MIN_SILENCE_MS, SILENCE_PERIODS * options.periodMs);
  }

  start(): void {
    if (this.running) return;
    this.running = true;
    this.launch();
  }

  stop(): void {
    this.running = false;
    this.restart?.cancel();
    this.watchdog?.cancel();
    kill(this.child);
    this.child = undefined;
  }

  latest(): { value: GpuSample[]; atMs: number } | undefined {
    return this.record.latest();
  }

  status(): CollectorStatus {
    return this.record.status();
  }

  private launch(): void {
    const { nvidiaSmiPath, periodMs } = this.options;
    const args = [`--query-gpu=${FIELDS.join(',')}`, '--format=csv,noheader,nounits', '-lms', String(periodMs)];
    this.partialLine = '';
    this.complaint = '';
    this.lastRowMs = this.options.env.clock.nowMs();
    try {
      this.follow(spawn(nvidiaSmiPath, args, { stdio: ['ignore', 'pipe', 'pipe'] }));
    } catch (error) {
      this.ended(undefined, error);
    }
  }

  private follow(child: ChildProcessByStdio<null, Readable, Readable>): void {
    const { clock } = this.options.env;
    this.child = child;
    child.stdout.setEncoding('utf8').on('data', (text: string) => this.read(text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.complaint = (this.complaint + text).slice(0, 500);
    });
    child.on('error', (error) => this.ended(child, error));
    child.on('close', (code, signal) =>
      this.ended(child, this.complaint.trim() || `nvidia-smi ended (${signal ?? `exit code ${code}`})`),
    );
    this.watchdog?.cancel();
    this.watchdog = clock.every(this.silenceMs, () => {
      if (clock.nowMs() - this.lastRowMs < this.silenceMs) return;
      this.complaint = `nvidia-smi gave no sample for ${this.silenceMs} ms`;
      kill(child);
    });
  }

  private ended(child: ChildProcess | undefined, why: unknown): void {
    if (this.child !== child || !this.running) return;
    this.child = undefined;
    this.watchdog?.cancel();
    const missing = (why as { code?: unknown }).code === 'ENOENT';
    this.record.fail(missing ? `${this.options.nvidiaSmiPath} is not there: no GPU samples` : errorMessage(why));
    const pauseMs = missing ? MAX_BACKOFF_MS : this.backoffMs;
    this.backoffMs = Math.min(MAX_BACKOFF_MS, this.backoffMs * 2);
    this.restart = this.options.env.clock.after(pauseMs, () => this.launch());
  }

  private read(text: string): void {
    const lines = (this.partialLine + text).split('\n');
    this.partialLine = (lines.pop() ?? '').slice(0, MAX_LINE_LENGTH);
    if (lines.length > 0) this.record.begin();
    for (const line of lines) this.readLine(line);
  }

  private readLine(line: string): void {
    const sample = readGpuLine(line, (name, text) => this.record.noteOdd(name, text));
    if (!sample) return;
    const nowMs = this.options.env.clock.nowMs();
    const sincePreviousMs = nowMs - (this.rows.get(sample.index)?.atMs ?? nowMs);
    this.lastRowMs = nowMs;
    this.backoffMs = FIRST_BACKOFF_MS;
    this.rows.set(sample.index, { sample, atMs: nowMs });
    for (const [index, row] of this.rows) if (nowMs - row.atMs > this.silenceMs) this.rows.delete(index);
    const all = [...this.rows.values()].map((row) => row.sample);
    this.record.succeed(
      all.toSorted((a, b) => a.index - b.index),
      sincePreviousMs,
    );
  }
}

/**
 * Before its `error` event, a child that could not be started has a handle with a process id of chance: Node would
 * signal whoever has it.
 */
function kill(child: ChildProcess | undefined): void {
  if (child?.pid !== undefined) child.kill('SIGKILL');
}

/**
 * Reads one line of the csv; undefined when it is not a sample (a message of the driver, say). Figures that cannot be
 * are told to `note` and left out.
 */
export function readGpuLine(line: string, note: NoteOdd = () => undefined): GpuSample | undefined {
  const cells = line.split(',').map((cell) => cell.trim());
  if (cells.length !== FIELDS.length || !/^\d+$/.test(cells[0] ?? '')) return undefined;
  const number = (at: number): number | undefined => {
    const value = Number.parseFloat(cells[at] ?? '');
    return Number.isFinite(value) ? value : undefined;
  };
  const share = (at: number, whole: number | undefined, max: number): number | undefined => {
    const part = number(at);
    return part === undefined || whole === undefined || whole <= 0
      ? undefined
      : shareOf(`${FIELDS[at]} of GPU ${cells[0]}`, part / whole, note, max);
  };
  const temperatureC = number(11);
  return {
    index: Number(cells[0]),
    uuid: cells[1] ?? '',
    name: cells[2] ?? '',
    utilRatio: share(3, 100, 1),
    memUtilRatio: share(4, 100, 1),
    memUsedRatio: share(5, number(6), 1),
    memTotalMb: number(6),
    smClockRatio: share(7, number(8), MOST_OVER_LIMIT),
    powerRatio: share(9, number(10), MOST_OVER_LIMIT),
    temperatureC: temperatureC !== undefined && Math.abs(temperatureC) <= MAX_TEMPERATURE_C ? temperatureC : undefined,
  };
}
