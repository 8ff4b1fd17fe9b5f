import type { Env } from '../../shared/env.ts';
import { MAX_SAMPLES_PER_FRAME } from '../../shared/protocol.ts';
import { NAME_BOUNDS } from '../../shared/report.ts';
import type { Outcome, OutcomeStatus, Sample } from '../../shared/sample.ts';
import { toBytes } from '../../shared/table.ts';
import type { Decision } from './decide.ts';
import type { AttemptResult } from './forward.ts';
import type { ClientRequest } from '../request/read.ts';

/** A batch on its way to the brain, kept until it is acknowledged. */
export interface SampleBatch {
  batch: number;
  samples: Sample[];
}

/** Samples that wait for the brain. Bounded: beyond `max` the oldest are dropped, and counted. */
export class SampleQueue {
  dropped = 0;
  /** samples held, sent ones included */
  size = 0;
  private readonly max: number;
  private readonly waiting: Sample[] = [];
  private readonly unacked: SampleBatch[] = [];
  private nextBatch = 0;

  constructor(max: number) {
    this.max = max;
  }

  push(sample: Sample): void {
    this.waiting.push(sample);
    this.size += 1;
    while (this.size > this.max) this.dropOldest();
  }

  /** The next batch to send, or undefined when nothing waits. It stays here until `ack`. */
  take(): SampleBatch | undefined {
    if (this.waiting.length === 0) return undefined;
    const batch = { batch: this.nextBatch++, samples: this.waiting.splice(0, MAX_SAMPLES_PER_FRAME) };
    this.unacked.push(batch);
    return batch;
  }

  ack(batch: number): void {
    const at = this.unacked.findIndex((one) => one.batch === batch);
    if (at >= 0) this.size -= this.unacked.splice(at, 1)[0]?.samples.length ?? 0;
  }

  /** What a new connection must be sent again, in order. */
  pending(): readonly SampleBatch[] {
    return this.unacked;
  }

  private dropOldest(): void {
    const sent = this.unacked[0]?.samples;
    (sent ?? this.waiting).shift();
    if (sent?.length === 0) this.unacked.shift();
    this.size -= 1;
    this.dropped += 1;
  }
}

/**
 * The sample of one attempt: its decision and what came of it, failures and aborts included (their latency is
 * censored).
 */
export function makeSample(
  env: Env,
  request: ClientRequest,
  decision: Decision,
  result: AttemptResult,
  status: OutcomeStatus,
): Sample {
  return {
    instance: decision.view.id,
    kind: decision.view.report?.kind ?? '?',
    model: (request.model ?? decision.view.report?.models[0] ?? '').slice(0, NAME_BOUNDS.nameChars),
    atWallMs: env.clock.wallMs() - result.e2eMs,
    row: toBytes(decision.row),
    priorTtftMs: decision.priorTtftMs,
    priorTpotMs: decision.priorTpotMs,
    predictedTtftMs: decision.predictedTtftMs,
    predictedTtftP90Ms: decision.predictedTtftP90Ms,
    regime: decision.regime,
    policy: decision.policy,
    reason: decision.reason.slice(0, 128),
    propensity: Math.min(1, Math.max(0, decision.propensity)),
    tableVersion: decision.tableVersion,
    stream: request.stream,
    promptBytes: request.promptIsTokens ? 0 : request.prompt.length,
    promptTokens: Math.round(decision.promptTokens),
    hitTokens: Math.round(decision.hitTokens),
    outcome: outcomeOf(request, decision, result, status),
  };
}

function outcomeOf(request: ClientRequest, decision: Decision, result: AttemptResult, verdict: OutcomeStatus): Outcome {
  const { observed } = result;
  const { usage } = observed;
  // An answer that is not streamed hides its first token, unless the engine tells: then what lies outside the engine's
  // own clock is added.
  const outsideMs = (decision.view.report?.law.frontEndMs ?? 0) + decision.view.linkMs;
  const toldMs = usage?.engineTtftMs === undefined ? undefined : usage.engineTtftMs + outsideMs;
  const outputTokens = Math.round(usage?.outputTokens ?? observed.tokens);
  // Whatever else succeeds (a redirect, an empty answer) is no latency of a computed answer.
  const status = verdict === 'ok' && result.httpStatus !== 200 ? 'failed' : verdict;
  const ok = status === 'ok';
  const ttftMs = request.stream ? observed.ttftMs : toldMs;
  const decodeMs =
    observed.lastTokenMs !== undefined && ttftMs !== undefined ? observed.lastTokenMs - ttftMs : undefined;
  const perSequence = outputTokens / Math.max(1, request.sequences);
  return {
    status,
    ttftMs: ok && ttftMs !== undefined ? ttftMs : null,
    tpotMs: ok && decodeMs !== undefined && perSequence > 1 ? decodeMs / (perSequence - 1) : null,
    e2eMs: result.e2eMs,
    outputTokens,
    promptTokens: usage?.promptTokens ?? null,
    cachedTokens: usage?.cachedTokens ?? null,
  };
}
