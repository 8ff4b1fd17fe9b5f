import { LodestarError } from '../../shared/errors.ts';
import { simPrompt } from '../workloads/prompts.ts';
import { pace, readTrace, type TraceFormatName } from '../workloads/trace.ts';
import type { TraceRequest } from '../workloads/trace-format.ts';
import type { Cluster } from './cluster.ts';
import { type SimRequest, simRequest } from './plan.ts';

/**
 * Which requests of which trace arrive how fast: small and plain, so that another thread can make the same requests.
 */
export interface TraceSpec {
  /** a file, an archive, a folder, or `synthetic:KIND` */
  file: string;
  /** recognised from the content where not given */
  format: TraceFormatName | undefined;
  lengthScale: number;
  outputScale: number;
  /** span of the trace at its own pace, s */
  startS: number;
  durationS: number | undefined;
  maxPromptTokens: number | undefined;
  maxRequests: number | undefined;
  /** mean requests/s, or a multiple of the trace's own pace */
  pace: { rate: number } | { speed: number };
}

/** The requests of a run, and how many of the trace's are not among them. */
export interface Scenario {
  requests: SimRequest[];
  dropped: Dropped;
}

export interface Dropped {
  /** prompts above `maxPromptTokens` */
  aboveMaxPrompt: number;
  /** requests that no instance can hold: prompt and answer above the largest KV cache */
  heldByNone: number;
}

/**
 * Makes the requests of a trace for a cluster; the seed draws what the trace leaves open. The same arguments give the
 * same requests. Throws TRACE_INVALID with file, line and field, or if nothing is left.
 */
export function makeScenario(trace: TraceSpec, cluster: Cluster, seed: number): Scenario {
  const { rows, dropped } = selectRows(trace, cluster, seed);
  const requests = pace(rows, trace.pace).map((row, index) =>
    simRequest(index, row.arrivalMs, simPrompt(row, seed), row.outputTokens, row.client ?? ''),
  );
  return { requests, dropped };
}

/**
 * Tokens of prompt and answer that the cluster can hold in one request at any time: the largest KV cache of an instance
 * that is there from the first request to the last, or of any where none is.
 */
export function largestRequestTokens({ instances, events }: Cluster): number {
  const absent = new Set(
    events
      .filter((event) => event.kind === 'join' || (event.kind === 'die' && event.restart === undefined))
      .map((event) => event.instance),
  );
  const lasting = instances.filter((_, index) => !absent.has(index));
  return Math.max(...(lasting.length > 0 ? lasting : instances).map((one) => one.kvTokens));
}

function selectRows(trace: TraceSpec, cluster: Cluster, seed: number): { rows: TraceRequest[]; dropped: Dropped } {
  const { file, format, lengthScale, outputScale, startS, durationS, maxPromptTokens, maxRequests } = trace;
  const read = readTrace(file, {
    format,
    seed,
    lengthScale,
    outputScale,
    startMs: startS * 1000,
    durationMs: durationS === undefined ? undefined : durationS * 1000,
    maxPromptTokens,
  });
  const room = largestRequestTokens(cluster);
  const rows: TraceRequest[] = [];
  let heldByNone = 0;
  for (const row of read.requests) {
    if (rows.length === maxRequests) break;
    if (row.inputTokens + row.outputTokens > room) heldByNone += 1;
    else rows.push(row);
  }
  const dropped = { aboveMaxPrompt: read.droppedTooLong, heldByNone };
  if (rows.length === 0) throw nothingLeft(trace, room, dropped);
  return { rows, dropped };
}

function nothingLeft({ file }: TraceSpec, room: number, { aboveMaxPrompt, heldByNone }: Dropped): LodestarError {
  const reasons = [
    aboveMaxPrompt > 0 ? `${aboveMaxPrompt} prompts are above the limit` : '',
    heldByNone > 0
      ? `${heldByNone} requests need more than the ${room} tokens that an instance holds; a length scale below 1 shortens them`
      : '',
  ].filter((reason) => reason !== '');
  return new LodestarError(
    'TRACE_INVALID',
    `${file}: no request is left${reasons.length > 0 ? `: ${reasons.join('; ')}` : ' in the span; widen start and duration'}`,
  );
}
