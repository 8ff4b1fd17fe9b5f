import { type CandidateState, type RoutingRequest, uncachedTokens } from '../../candidate.ts';
import type { InstanceLimits } from '../../instance.ts';
import { prefillWorkMs, type StepLaw } from '../../predictor/step-law.ts';

/*
 * What published policies read from scraped gauges, taken from the candidate instead: the door's exact ledger plus this
 * entry's own reservations. It is fresher than any gauge, which favours those policies.
 */

/**
 * Mean share of its prompt that a pending request already has in context when its tokens are computed (as in
 * predictor/prior.ts).
 */
export const PENDING_CONTEXT_SHARE = 0.6;

/** k: share of the KV cache that live requests hold, 0..1. */
export function kvUsageRatioOf(candidate: CandidateState): number {
  return Math.min(1, candidate.usedTokens / Math.max(1, candidate.report.limits.kvTokens));
}

/** Cached share of the request's prompt on the candidate, 0..1. */
export function hitRatioOf(request: RoutingRequest, candidate: CandidateState): number {
  return Math.min(1, candidate.hitTokens / Math.max(1, request.promptTokens));
}

/**
 * Cached blocks of the request's prompt per block that can be cached (an engine computes the last token anyhow), 0..1.
 */
export function blockHitRatioOf(request: RoutingRequest, candidate: CandidateState): number {
  const blockTokens = Math.max(1, candidate.report.limits.blockTokens);
  const blocks = Math.floor((request.promptTokens - 1) / blockTokens);
  return blocks > 0 ? Math.min(1, candidate.hitTokens / (blocks * blockTokens)) : 0;
}

/** Sequences in the engine's batch. */
export function runningOf(candidate: CandidateState): number {
  return candidate.prefilling + candidate.decoding;
}

/**
 * Milliseconds in which an otherwise idle engine prefills `tokens` over `contextTokens` cached: the compute by its own
 * step-time law, and the fixed cost of each chunk's step. It stands for the profile that an operator of a policy with
 * offline-fitted prefill times would measure.
 */
export function prefillMs(law: StepLaw, limits: InstanceLimits, tokens: number, contextTokens: number): number {
  return (
    law.c0 * Math.ceil(tokens / Math.max(1, limits.maxBatchedTokens)) + prefillWorkMs(law, tokens, contextTokens, 0)
  );
}

/** Milliseconds of prefill queued on the candidate before a new request. */
export function queuedPrefillMs(candidate: CandidateState): number {
  const { law, limits } = candidate.report;
  const { pendingTokens, pendingPromptTokens } = candidate;
  return (
    law.c0 * Math.ceil(pendingTokens / Math.max(1, limits.maxBatchedTokens)) +
    law.c1 * pendingTokens +
    law.c2 * pendingTokens * PENDING_CONTEXT_SHARE * pendingPromptTokens
  );
}

/** Milliseconds of prefill of the request itself on the candidate, with what it has cached. */
export function ownPrefillMs(request: RoutingRequest, candidate: CandidateState): number {
  return prefillMs(
    candidate.report.law,
    candidate.report.limits,
    uncachedTokens(request, candidate),
    candidate.hitTokens,
  );
}

/**
 * Peak prefill throughput, tokens per millisecond: one full chunk on an unloaded engine, as llm-d's guide measures it.
 */
export function peakPrefillPerMs(candidate: CandidateState): number {
  const { law, limits } = candidate.report;
  const chunk = Math.max(1, limits.maxBatchedTokens);
  return chunk / Math.max(1e-3, prefillMs(law, limits, chunk, 0));
}
