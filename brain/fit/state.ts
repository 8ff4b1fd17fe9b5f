import { type CandidateState, candidateOf, type RoutingRequest } from '../../shared/candidate.ts';
import { FEATURE_COUNT, writeFeatureRow } from '../../shared/features.ts';
import type { InstanceReport } from '../../shared/instance.ts';
import { estimatePrior, type PriorEstimate } from '../../shared/predictor/prior.ts';
import { decodeStepMs, type LawState, prefillWorkMs } from '../../shared/predictor/step-law.ts';
import { fitLaw, type LawRow } from './law.ts';
import type { LoggedRequest } from './log-reader.ts';
import { hasFirstToken, type Observation } from './timeline.ts';

/** vLLM's defaults where chunked prefill is on; a log does not say. */
const MAX_BATCHED_TOKENS = 2048;
const MAX_NUM_SEQS = 256;
const WORK_WINDOW_MS = 30_000;

/** What the door's ledger would say of the chosen instance, before the law is known. Tokens and ms. */
interface Account {
  request: LoggedRequest;
  own: number;
  decoding: number;
  decodeContextTokens: number;
  pending: number[];
  pendingPromptTokens: number;
  /** ms for which the oldest pending request has been computed */
  headMs: number;
  inFlight: number;
}

/** A row for the learner. */
export interface FitRow {
  features: Float32Array;
  priorMs: number;
  ttftMs: number;
}

function accountOf({ request, flights, sinceFirstTokenMs }: Observation, meanOutputTokens: number): Account {
  const pending = flights.filter((flight) => !hasFirstToken(flight));
  const decoding = flights.filter(hasFirstToken);
  return {
    request,
    own: ownTokens(request),
    decoding: decoding.length,
    decodeContextTokens: decoding.reduce((sum, flight) => sum + flight.request.promptTokens + meanOutputTokens / 2, 0),
    pending: pending.map((flight) => ownTokens(flight.request)),
    pendingPromptTokens:
      pending.reduce((sum, flight) => sum + flight.request.promptTokens, 0) / Math.max(1, pending.length),
    headMs: pending.length === 0 ? 0 : Math.min(sinceFirstTokenMs, pending[0]?.ageMs ?? 0),
    inFlight: flights.length,
  };
}

function ownTokens({ promptTokens, hitTokens }: LoggedRequest): number {
  return Math.max(1, promptTokens - hitTokens);
}

/**
 * Uncached tokens still to be computed before the request's own, when the oldest pending one has been computed for
 * `headMs`.
 */
function pendingTokens(account: Account, law: LawState): number {
  const [head = 0, ...rest] = account.pending;
  const base = decodeStepMs(law, account.decoding, account.decodeContextTokens);
  const headWork = prefillWorkMs(law, head, 0, 0) + (base * head) / MAX_BATCHED_TOKENS;
  const left = headWork <= 0 ? 1 : Math.max(0, 1 - account.headMs / headWork);
  return head * left + rest.reduce((sum, tokens) => sum + tokens, 0);
}

/**
 * Turns observations into feature rows with the prior of a law that is fitted to some of them: the code that serves
 * live decisions does both.
 */
export class StateModel {
  readonly law: LawState;
  private readonly meanOutputTokens: number;

  constructor(training: readonly Observation[]) {
    this.meanOutputTokens =
      training.reduce((sum, { request }) => sum + request.outputTokens, 0) / Math.max(1, training.length);
    const accounts = training.map((one) => accountOf(one, this.meanOutputTokens));
    let law: LawState | null = null;
    for (let round = 0; round < 4; round++) law = fitLaw(accounts.map((one) => lawRow(one, law)));
    this.law = law as LawState;
  }

  /** Rows of observations in order of arrival. */
  rows(observations: readonly Observation[]): FitRow[] {
    const work = new Map<string, { ratio: number; atMs: number }>();
    return observations.map((observation) => {
      const { request, atMs } = observation;
      const account = accountOf(observation, this.meanOutputTokens);
      const before = work.get(request.instance) ?? { ratio: 0, atMs };
      const ratio = before.ratio * Math.exp(-Math.max(0, atMs - before.atMs) / WORK_WINDOW_MS);
      const candidate = this.candidate(account, ratio);
      const routing: RoutingRequest = {
        model: undefined,
        promptTokens: request.promptTokens,
        textTokens: request.promptTokens,
        exactTokens: true,
        maxTokens: 0,
        outputTokens: this.meanOutputTokens,
        stream: true,
        sloTtftMs: undefined,
        sloTpotMs: undefined,
        priority: 0,
        sequences: 1,
      };
      const prior = estimatePrior(routing, candidate, {} as PriorEstimate);
      work.set(request.instance, { ratio: ratio + prior.workMs / WORK_WINDOW_MS, atMs });
      const features = new Float32Array(FEATURE_COUNT);
      writeFeatureRow(features, 0, routing, candidate, prior);
      return { features, priorMs: prior.ttftMs, ttftMs: request.ttftMs };
    });
  }

  private candidate(account: Account, workRatio: number): CandidateState {
    const { request, decoding, decodeContextTokens, inFlight, pendingPromptTokens } = account;
    const pending = pendingTokens(account, this.law);
    const candidate = candidateOf({
      instance: request.instance,
      agent: '',
      doorUrl: '',
      incarnation: 0,
      seq: 0,
      ageMs: 0,
      health: 'up',
      draining: false,
      models: [],
      kind: '',
      seen: [],
      limits: {
        kvTokens: Number.MAX_SAFE_INTEGER,
        blockTokens: 16,
        maxNumSeqs: MAX_NUM_SEQS,
        maxBatchedTokens: MAX_BATCHED_TOKENS,
        maxModelLen: Number.MAX_SAFE_INTEGER,
      },
      ledger: {
        inFlight,
        waiting: 0,
        prefilling: account.pending.length,
        decoding,
        pendingTokens: pending,
        waitingTokens: 0,
        pendingPromptTokens,
        decodeContextTokens,
        usedTokens: decodeContextTokens + account.pending.reduce((sum, tokens) => sum + tokens, 0),
        workRatio,
        meanOutputTokens: this.meanOutputTokens,
        stepAgeMs: -1,
      },
      law: this.law,
      cache: null,
      engine: { running: request.running, waiting: request.waiting, kvUsageRatio: request.kvUsageRatio, ageMs: 0 },
      gpu: null,
      host: null,
    } satisfies InstanceReport);
    candidate.hitTokens = request.hitTokens;
    return candidate;
  }
}

/**
 * The terms of the prior (shared/predictor/prior.ts) for one observation. Without a law, all that was computed counts
 * as done.
 */
function lawRow(account: Account, law: LawState | null): LawRow {
  const { request, own, decoding, decodeContextTokens, headMs } = account;
  const all = account.pending.reduce((sum, tokens) => sum + tokens, 0);
  const pending = law ? pendingTokens(account, law) : all;
  const total = pending + own;
  return {
    totalMs: request.ttftMs + (law ? 0 : headMs),
    ttftMs: request.ttftMs,
    steps:
      Math.ceil(total / Math.max(256, MAX_BATCHED_TOKENS - decoding)) +
      (decoding + account.pending.length > 0 ? 0.5 : 0),
    decoding,
    contextTokens: decodeContextTokens,
    prefillTokens: total,
    pairs: own * (request.hitTokens + own / 2) + pending * 0.6 * account.pendingPromptTokens,
  };
}
