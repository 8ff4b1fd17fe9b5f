import { type CandidateState, type RoutingRequest, uncachedTokens } from '../candidate.ts';
import { billedTokens, decodeStepMs, prefillBaseMs, prefillWorkMs } from './step-law.ts';

/** How many tokens of growth per decoding sequence the KV estimate allows for. */
const GROWTH_TOKENS = 120;
/** Answer length in tokens expected before any was seen: that of public chat traces. */
export const START_OUTPUT_TOKENS = 200;
/** Mean share of its prompt that a pending request already has in context when its tokens are computed. */
const PENDING_CONTEXT_SHARE = 0.6;

/** Residuals are ratios to the prior, so it is never zero, whatever law a door reports. */
const MIN_MS = 0.01;

/** What the step-time law says of one request on one candidate. Milliseconds and tokens. */
export interface PriorEstimate {
  ttftMs: number;
  tpotMs: number;
  /** prefill compute that the request costs the instance */
  workMs: number;
  /** a step of the instance's present decode batch, without prefill */
  baseMs: number;
  /** tokens by which the KV cache would be overbooked; <= 0 when the request fits */
  overTokens: number;
  /** (used + waiting + own) / kvTokens */
  kvPressure: number;
}

/**
 * Physics prior: TTFT and TPOT of `request` on `candidate` from the instance's step-time law and the door's ledger.
 *
 *   T     = pending + own
 *   steps = ceil(T / max(256, maxBatchedTokens − D))
 *   ttft  = frontEnd + link + base/2 + steps·(base + c5·ctx) + c1·max(0, T − steps·max(0, t0 − D)) + c2·(own·(hit + own/2) + pending·0.6·L)
 *           base/2: the wait for the running step, if there is one; where its beginning is known, what is left of it when the request gets there
 *   over  = used + waiting + own + g·D − kvTokens;  over > 0: ttft += min(3, over/used)·out·(base + 256·c1)
 *   tpot  = step of the decode batch with this request in it / (1 − min(0.9, ρ))      prefill takes ρ of the time from decoding
 *
 * Source: measured choice of the project (docs/learning.md), vLLM V1's scheduler (vllm/v1/core/sched/scheduler.py) for
 * the step structure. `out` in the formulas is the expected answer length. Writes into `out` and returns it.
 */
export function estimatePrior(request: RoutingRequest, candidate: CandidateState, out: PriorEstimate): PriorEstimate {
  const { law, limits } = candidate.report;
  const own = uncachedTokens(request, candidate);
  const pending = candidate.pendingTokens;
  const total = pending + own;
  const decoding = candidate.decoding;
  const base = decodeStepMs(law, decoding, candidate.decodeContextTokens);
  const running = decoding > 0 || candidate.prefilling > 0;
  const steps = Math.ceil(total / Math.max(256, limits.maxBatchedTokens - decoding));
  const stepsMs =
    steps * prefillBaseMs(law, decoding, candidate.decodeContextTokens) +
    (running ? runningStepMs(candidate, base) : 0);
  const pairs = own * (candidate.hitTokens + own / 2) + pending * PENDING_CONTEXT_SHARE * candidate.pendingPromptTokens;
  let ttft =
    law.frontEndMs + candidate.linkMs + stepsMs + law.c1 * billedTokens(law, total, steps, decoding) + law.c2 * pairs;

  const demand = candidate.usedTokens + candidate.waitingTokens + own;
  const over = demand + GROWTH_TOKENS * decoding - limits.kvTokens;
  if (over > 0)
    ttft += Math.min(3, over / Math.max(1, candidate.usedTokens)) * request.outputTokens * (base + 256 * law.c1);
  // A batch that is full admits the next request only when one of its sequences ends.
  const queued = candidate.inFlight + 1 - limits.maxNumSeqs;
  if (queued > 0) ttft += (queued / Math.max(1, limits.maxNumSeqs)) * request.outputTokens * base;

  out.ttftMs = Math.max(MIN_MS, ttft);
  out.tpotMs = Math.max(
    MIN_MS,
    decodeStepMs(law, decoding + 1, candidate.decodeContextTokens + request.promptTokens) /
      (1 - Math.min(0.9, candidate.workRatio)),
  );
  out.workMs = prefillWorkMs(law, own, candidate.hitTokens, decoding);
  out.baseMs = base;
  out.overTokens = over;
  out.kvPressure = demand / Math.max(1, limits.kvTokens);
  return out;
}

/** Steps over which their rhythm can be counted on, noise and all. */
const RHYTHM_STEPS = 4;

/** What is left of the step that runs when the request reaches the engine's queue, ms. */
function runningStepMs({ report, ageMs, unseen, linkMs }: CandidateState, baseMs: number): number {
  const { stepAgeMs } = report.ledger;
  if (stepAgeMs < 0 || unseen > 0 || stepAgeMs + ageMs > RHYTHM_STEPS * baseMs) return baseMs / 2;
  return baseMs - ((stepAgeMs + ageMs + linkMs / 2 + report.law.frontEndMs) % baseMs);
}
