import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { errorMessage, LodestarError } from '../../shared/errors.ts';
import { csvCells } from './csv.ts';

/** One finished request of a log. Times in ms, lengths in tokens. */
export interface LoggedRequest {
  instance: string;
  promptTokens: number;
  /** what the gateway believed cached on the chosen instance */
  hitTokens: number;
  outputTokens: number;
  ttftMs: number;
  e2eMs: number;
  /** gauges of the chosen instance's engine, scraped while routing */
  running: number;
  waiting: number;
  kvUsageRatio: number;
  /** null where the log has no times */
  startMs: number | null;
  /** place among the file's rows; where the log has no times, rows are in order of completion */
  row: number;
  /**
   * the gateway's own counts in the order of `RequestLog.instances`, without this request; empty where the log has
   * times
   */
  inFlight: readonly number[];
}

export interface RequestLog {
  format: 'timed' | 'counted';
  instances: readonly string[];
  /** in order of arrival, without those that failed */
  requests: LoggedRequest[];
  failed: number;
}

const MAX_BYTES = 400 * 1024 * 1024;
const COUNT_SUFFIX = '-inflight_requests';
/** More than any context window: lengths beyond are misread columns. */
const MAX_TOKENS = 1e8;
/** e2e is the sum of two rounded times. */
const ROUNDING_MS = 5;

/**
 * Reads a recorded request log, plain or gzip, in either format of the public Lodestar logs: with times (column
 * `start_us`), or with the gateway's counts for every instance (columns `<instance>-inflight_requests`). Only what is
 * known while routing, TTFT and end-to-end time are read. Throws LOG_INVALID.
 */
export function readRequestLog(file: string): RequestLog {
  const lines = readText(file).split(/\r?\n/);
  const header = csvCells(lines[0] ?? '');
  if (!header) throw new LodestarError('LOG_INVALID', `${file}, line 1: a quoted cell does not end`);
  const timed = header.includes('start_us');
  if (!timed && !header.includes('selected_pod')) {
    throw new LodestarError(
      'LOG_INVALID',
      `${file}, line 1: neither column start_us nor selected_pod, so this is no request log of a known format; its first line must name the columns`,
    );
  }
  const columns = new Map(header.map((name, at) => [name, at]));
  const instances = header
    .filter((name) => name.endsWith(COUNT_SUFFIX))
    .map((name) => name.slice(0, -COUNT_SUFFIX.length));
  for (const name of timed ? TIMED_COLUMNS : countedColumns(instances)) {
    if (!columns.has(name))
      throw new LodestarError('LOG_INVALID', `${file}, line 1: column ${name} is missing; the log needs it`);
  }
  const read: { key: number; request: LoggedRequest }[] = [];
  let failed = 0;
  lines.forEach((line, at) => {
    if (at === 0 || line === '') return;
    const row = new Row(file, at + 1, columns, line);
    if (row.number(timed ? 'ttft_ms' : 'ttft', 0) === 0) failed += 1;
    else read.push(timed ? timedRequest(row, at) : countedRequest(row, at, instances));
  });
  read.sort((a, b) => a.key - b.key);
  const requests = read.map(({ request }) => request);
  return {
    format: timed ? 'timed' : 'counted',
    instances: timed ? [...new Set(requests.map(({ instance }) => instance))].toSorted() : instances,
    requests,
    failed,
  };
}

const TIMED_COLUMNS = [
  'start_us',
  'pod',
  'ttft_ms',
  'e2e_ms',
  'input_tokens',
  'output_tokens',
  'hit_pct',
  'running',
  'waiting',
  'kv_usage',
] as const;
const COUNTED_PER_INSTANCE = ['kv_hit_ratio', 'running_requests', 'waiting_requests', 'gpu_kv_cache'] as const;

function countedColumns(instances: readonly string[]): string[] {
  const perInstance = instances.flatMap((instance) => COUNTED_PER_INSTANCE.map((name) => `${instance}-${name}`));
  return ['request_id', 'selected_pod', 'input_tokens', 'output_tokens', 'ttft', 'e2e_latency', ...perInstance];
}

/** One line, whose cells are read by column, with errors that name both. */
class Row {
  private readonly where: string;
  private readonly columns: ReadonlyMap<string, number>;
  private readonly cells: readonly string[];

  constructor(file: string, line: number, columns: ReadonlyMap<string, number>, text: string) {
    this.where = `${file}, line ${line}`;
    this.columns = columns;
    const cells = csvCells(text);
    if (!cells) throw new LodestarError('LOG_INVALID', `${this.where}: a quoted cell does not end`);
    if (cells.length !== columns.size)
      throw new LodestarError(
        'LOG_INVALID',
        `${this.where}: ${cells.length} cells, but line 1 names ${columns.size} columns`,
      );
    this.cells = cells;
  }

  text(column: string): string {
    return this.cells[this.columns.get(column) as number] as string;
  }

  number(column: string, min: number, max = Infinity): number {
    const text = this.text(column);
    const value = Number(text);
    if (text.trim() !== '' && Number.isFinite(value) && value >= min && value <= max) return value;
    const range = max === Infinity ? (min === -Infinity ? '' : ` of at least ${min}`) : ` from ${min} to ${max}`;
    throw this.invalid(column, `must be a number${range}`);
  }

  invalid(column: string, must: string): LodestarError {
    return new LodestarError(
      'LOG_INVALID',
      `${this.where}, column ${column}: ${JSON.stringify(this.text(column).slice(0, 40))} ${must}`,
    );
  }
}

function timedRequest(row: Row, at: number): { key: number; request: LoggedRequest } {
  const startMs = row.number('start_us', -Infinity) / 1000;
  if (row.text('pod') === '') throw row.invalid('pod', 'must name the chosen instance');
  const request = requestOf(row, at, row.text('pod'), [
    'ttft_ms',
    'e2e_ms',
    'hit_pct',
    'running',
    'waiting',
    'kv_usage',
  ]);
  return { key: startMs, request: { ...request, startMs, inFlight: [] } };
}

function countedRequest(row: Row, at: number, instances: readonly string[]): { key: number; request: LoggedRequest } {
  const instance = row.text('selected_pod');
  if (!instances.includes(instance))
    throw row.invalid('selected_pod', `must be one of the instances of line 1: ${instances.join(', ')}`);
  const own = COUNTED_PER_INSTANCE.map((name) => `${instance}-${name}`) as [string, string, string, string];
  const request = requestOf(row, at, instance, ['ttft', 'e2e_latency', ...own]);
  return {
    key: row.number('request_id', 0),
    request: { ...request, startMs: null, inFlight: instances.map((name) => row.number(`${name}${COUNT_SUFFIX}`, 0)) },
  };
}

type Names = readonly [ttft: string, e2e: string, hit: string, running: string, waiting: string, kv: string];

function requestOf(
  row: Row,
  at: number,
  instance: string,
  [ttft, e2e, hit, running, waiting, kv]: Names,
): Omit<LoggedRequest, 'startMs' | 'inFlight'> {
  const ttftMs = row.number(ttft, 0);
  const e2eMs = row.number(e2e, 0);
  if (e2eMs < ttftMs - ROUNDING_MS) throw row.invalid(e2e, `must not be below ${ttft} of the line, ${ttftMs}`);
  const promptTokens = row.number('input_tokens', 1, MAX_TOKENS);
  return {
    instance,
    promptTokens,
    hitTokens: (promptTokens * row.number(hit, 0, 100)) / 100,
    outputTokens: row.number('output_tokens', 0, MAX_TOKENS),
    ttftMs,
    e2eMs,
    running: row.number(running, 0),
    waiting: row.number(waiting, 0),
    kvUsageRatio: row.number(kv, 0),
    row: at,
  };
}

function readText(file: string): string {
  try {
    const bytes = readFileSync(file);
    const gzip = bytes[0] === 0x1f && bytes[1] === 0x8b;
    const plain = gzip ? gunzipSync(bytes, { maxOutputLength: MAX_BYTES }) : bytes;
    if (plain.byteLength > MAX_BYTES) throw new Error(`is larger than ${MAX_BYTES} bytes; cut it`);
    return plain.toString('utf8');
  } catch (error) {
    throw new LodestarError('LOG_INVALID', `${file}: cannot be read: ${errorMessage(error)}`, { cause: error });
  }
}
