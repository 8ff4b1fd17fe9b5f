import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { seededRng } from '../../shared/env.ts';
import { errorMessage, LodestarError } from '../../shared/errors.ts';
import { packageRoot } from '../../shared/package-root.ts';

/** One request of a trace, times from the start of the selected span. */
export interface TraceRequest {
  arrivalMs: number;
  /** Prompt length after scaling. */
  inputTokens: number;
  /** Length of the answer: only for `max_tokens`, never for a router to see. */
  outputTokens: number;
  /** Ids of the prompt's blocks of 512 unscaled tokens, chained over the prefix. */
  hashIds: readonly number[];
}

export interface TraceOptions {
  /** Draws the arrival within its 3 s cell of the origin's grid. */
  seed: number;
  /** Length of prompts relative to the origin: 0.125 lets a block stand for 64 tokens. */
  lengthScale: number;
  outputScale: number;
  /** Selected span of the trace in ms; the rest is left out. */
  startMs?: number | undefined;
  durationMs?: number | undefined;
  /** Prompts above this many tokens, after scaling, are dropped and counted. */
  maxPromptTokens?: number | undefined;
  maxRequests?: number | undefined;
}

export interface Trace {
  requests: TraceRequest[];
  /** Requests left out because their prompts were too long. */
  droppedTooLong: number;
}

/** Tokens of the origin in one block. */
export const BLOCK_TOKENS = 512;
const GRID_MS = 3000;
/** Part of the origin's timestamps lie a millisecond beside the grid. */
const GRID_ERROR_MS = 1;

/** The trace that comes with the package. */
export const bundledTrace: string = join(packageRoot, 'sim/data/traces/mooncake-conversation-first10min.jsonl.gz');

/**
 * Reads a Mooncake trace (JSON lines, plain or gzip) in order of arrival. Timestamps that all lie on a 3 s grid are spread uniformly over their cell, since
 * replayed as they are they arrive in bursts that never happened. Throws TRACE_INVALID with line and field.
 */
export function readMooncake(file: string, options: TraceOptions): Trace {
  const rows = readRows(file);
  const rng = seededRng(options.seed);
  const cellMs = (row: TraceRequest): number => Math.round(row.arrivalMs / GRID_MS) * GRID_MS;
  if (rows.length > 1 && rows.every((row) => Math.abs(row.arrivalMs - cellMs(row)) <= GRID_ERROR_MS)) {
    for (const row of rows) row.arrivalMs = cellMs(row) + rng() * GRID_MS;
  }
  rows.sort((a, b) => a.arrivalMs - b.arrivalMs);
  const startMs = options.startMs ?? 0;
  const endMs = startMs + (options.durationMs ?? Infinity);
  const selected = rows.filter((row) => row.arrivalMs >= startMs && row.arrivalMs < endMs);
  const scaled = selected.map((row) => ({
    arrivalMs: row.arrivalMs - startMs,
    inputTokens: Math.max(1, Math.round(row.inputTokens * options.lengthScale)),
    outputTokens: Math.max(1, Math.round(row.outputTokens * options.outputScale)),
    hashIds: row.hashIds,
  }));
  const fitting = scaled.filter((row) => row.inputTokens <= (options.maxPromptTokens ?? Infinity));
  return { requests: fitting.slice(0, options.maxRequests), droppedTooLong: scaled.length - fitting.length };
}

/** The same arrivals at another pace: `speed` divides the times, `rate` (requests/s) chooses the speed that gives this mean rate. */
export function pace(requests: readonly TraceRequest[], by: { speed: number } | { rate: number }): TraceRequest[] {
  const first = requests[0]?.arrivalMs ?? 0;
  const spanMs = (requests.at(-1)?.arrivalMs ?? 0) - first;
  const speed = 'speed' in by ? by.speed : (by.rate * spanMs) / (1000 * Math.max(1, requests.length - 1)) || 1;
  return requests.map((request) => ({ ...request, arrivalMs: (request.arrivalMs - first) / speed }));
}

function readRows(file: string): TraceRequest[] {
  let text: string;
  try {
    const bytes = readFileSync(file);
    text = (bytes[0] === 0x1f && bytes[1] === 0x8b ? gunzipSync(bytes) : bytes).toString('utf8');
  } catch (error) {
    throw new LodestarError('TRACE_INVALID', `cannot read the trace ${file}: ${errorMessage(error)}`, { cause: error });
  }
  const rows: TraceRequest[] = [];
  for (const [at, line] of text.split('\n').entries()) {
    if (line.trim() !== '') rows.push(readRow(line, `${file} line ${at + 1}`));
  }
  if (rows.length === 0) throw new LodestarError('TRACE_INVALID', `${file} holds no request`);
  return rows;
}

function readRow(line: string, where: string): TraceRequest {
  let row: unknown;
  try {
    row = JSON.parse(line);
  } catch (error) {
    throw new LodestarError('TRACE_INVALID', `${where}: is not JSON: ${errorMessage(error)}`, { cause: error });
  }
  if (typeof row !== 'object' || row === null || Array.isArray(row)) throw new LodestarError('TRACE_INVALID', `${where}: is not an object`);
  const fields = row as Record<string, unknown>;
  const inputTokens = readNumber(fields, 'input_length', 1, where);
  const blocks = Math.ceil(inputTokens / BLOCK_TOKENS);
  const hashIds = fields.hash_ids;
  if (!Array.isArray(hashIds) || !hashIds.every((id) => Number.isSafeInteger(id)) || hashIds.length !== blocks) {
    throw new LodestarError('TRACE_INVALID', `${where}: hash_ids must be ${blocks} integers, one for each ${BLOCK_TOKENS} tokens of input_length`);
  }
  return { arrivalMs: readNumber(fields, 'timestamp', 0, where), inputTokens, outputTokens: readNumber(fields, 'output_length', 0, where), hashIds: hashIds as number[] };
}

function readNumber(fields: Record<string, unknown>, name: string, min: number, where: string): number {
  const value = fields[name];
  if (typeof value === 'number' && Number.isFinite(value) && value >= min) return value;
  throw new LodestarError('TRACE_INVALID', `${where}: ${name} must be a number of at least ${min}, found ${JSON.stringify(value) ?? 'nothing'}`);
}
