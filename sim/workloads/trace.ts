import { join } from 'node:path';
import { seededRng } from '../../shared/env.ts';
import { LodestarError } from '../../shared/errors.ts';
import { packageRoot } from '../../shared/package-root.ts';
import { azure } from './azure.ts';
import { lmcache } from './lmcache.ts';
import { mooncake } from './mooncake.ts';
import { servegen } from './servegen.ts';
import { SYNTHETIC_PREFIX, synthesize } from './synthetic.ts';
import { tidy } from './tidy.ts';
import { firstLineOf } from './trace-fields.ts';
import type { Trace, TraceFormat, TraceRequest, TraceRow } from './trace-format.ts';
import { readSource, type TraceFile } from './trace-source.ts';

/** Every kind of trace file; a new one is a line here. */
const FORMATS = { mooncake, azure, servegen, lmcache, tidy } satisfies Record<string, TraceFormat>;
export type TraceFormatName = keyof typeof FORMATS;
export const TRACE_FORMATS = Object.keys(FORMATS) as TraceFormatName[];

export interface TraceOptions {
  /** Draws what the origin leaves open: arrivals within its time grid, the order of recorded sessions. */
  seed: number;
  /** Length of prompts relative to the origin: 0.125 lets a block of 512 tokens stand for 64. */
  lengthScale: number;
  outputScale: number;
  /** Selected span of the trace in ms; the rest is left out. */
  startMs?: number | undefined;
  durationMs?: number | undefined;
  /** Prompts above this many tokens, after scaling, are dropped and counted. */
  maxPromptTokens?: number | undefined;
  maxRequests?: number | undefined;
}

/** The trace that comes with the package. */
export const bundledTrace: string = join(packageRoot, 'sim/data/traces/mooncake-conversation-first10min.jsonl.gz');

/** How long a made-up trace is if nobody says. */
const SYNTHETIC_MS = 600_000;

/**
 * Reads a trace in order of arrival: a file, plain or gzip, a tar archive or folder of JSON lines, or `synthetic:KIND`,
 * which needs no file. The format is recognised by the first line unless given. Prompt lengths and blocks scale alike,
 * so what prompts share stays shared. Throws TRACE_INVALID with file, line and field.
 */
export function readTrace(file: string, options: TraceOptions & { format?: TraceFormatName | undefined }): Trace {
  if (file.startsWith(SYNTHETIC_PREFIX)) {
    const endMs = (options.startMs ?? 0) + (options.durationMs ?? SYNTHETIC_MS);
    return selectRequests(synthesize(file, options.seed, endMs), options);
  }
  const files = readSource(file);
  const format = options.format === undefined ? recognise(file, files) : FORMATS[options.format];
  const rows = format.read(files, seededRng(options.seed));
  if (rows.length === 0) throw new LodestarError('TRACE_INVALID', `${file} holds no request`);
  return selectRequests(rows, options);
}

/** `readTrace` for a file known to be Mooncake's. */
export function readMooncake(file: string, options: TraceOptions): Trace {
  return readTrace(file, { ...options, format: 'mooncake' });
}

/** Rows in order of arrival, cut to the span, scaled, and without those whose prompts are too long. */
export function selectRequests(rows: readonly TraceRow[], options: TraceOptions): Trace {
  const { lengthScale, outputScale } = options;
  const startMs = options.startMs ?? 0;
  const endMs = startMs + (options.durationMs ?? Infinity);
  const selected = rows
    .filter((row) => row.arrivalMs >= startMs && row.arrivalMs < endMs)
    .toSorted((a, b) => a.arrivalMs - b.arrivalMs);
  const scaled = selected.map((row) => ({
    ...row,
    arrivalMs: row.arrivalMs - startMs,
    inputTokens: Math.max(1, Math.round(row.inputTokens * lengthScale)),
    outputTokens: Math.max(1, Math.round(row.outputTokens * outputScale)),
    blockTokens: row.blockTokens * lengthScale,
  }));
  const fitting = scaled.filter((row) => row.inputTokens <= (options.maxPromptTokens ?? Infinity));
  return { requests: fitting.slice(0, options.maxRequests), droppedTooLong: scaled.length - fitting.length };
}

/**
 * The same arrivals at another pace: `speed` divides the times, `rate` (requests/s) chooses the speed that gives this
 * mean rate.
 */
export function pace<Request extends Pick<TraceRequest, 'arrivalMs'>>(
  requests: readonly Request[],
  by: { speed: number } | { rate: number },
): Request[] {
  const first = requests[0]?.arrivalMs ?? 0;
  const spanMs = (requests.at(-1)?.arrivalMs ?? 0) - first;
  const speed = 'speed' in by ? by.speed : (by.rate * spanMs) / (1000 * Math.max(1, requests.length - 1)) || 1;
  return requests.map((request) => ({ ...request, arrivalMs: (request.arrivalMs - first) / speed }));
}

function recognise(path: string, files: readonly TraceFile[]): TraceFormat {
  const first = files.map((file) => firstLineOf(file.text)).find((line) => line !== '');
  if (first === undefined) throw new LodestarError('TRACE_INVALID', `${path} holds no request`);
  const format = Object.values(FORMATS).find((one) => one.recognises(first));
  if (format) return format;
  throw new LodestarError(
    'TRACE_INVALID',
    `${path}: its first line is that of no known format; say which with --format ${TRACE_FORMATS.join('|')}`,
  );
}
