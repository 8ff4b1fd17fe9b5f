import { type CandidateState, type RoutingRequest, uncachedTokens } from '../../candidate.ts';
import { PerInstance } from '../learners/per-instance.ts';
import { argminRandomTies } from '../ties.ts';
import type { ChoiceInput, Policy, PolicyKind } from './policy.ts';
import { PENDING_CONTEXT_SHARE, peakPrefillPerMs } from './readings.ts';

/**
 * The original counts characters: of its coefficients, 1 and 1e-4, one token takes four, and a pair of tokens sixteen.
 */
const LINEAR = 4;
const ATTENTION = 16e-4;
/** TTFT within which a request is content, ms: 0.2 s and 1e-4 s per character. */
const BASE_SLO_MS = 200;
const SLO_MS_PER_TOKEN = 0.4;
const AFFINITY = 0.1;
const RATE_WINDOW = 64;
const RATE_MIN = 8;

interface Rate {
  values: number[];
  next: number;
  /** work per ms; 0 until enough was seen */
  p90: number;
}

/**
 * smetric (an unmerged branch of vllm/router): with m uncached tokens of L,
 *
 *   work = 4·m + 16e-4·m·(L − m/2)      queued = pending work + own      meets: queued/rate <= 0.2 s + 0.4 ms·L
 *   rate = P90 of the last 64 of work/TTFT, from 8 on; before, one chunk by the instance's step-time law
 *
 * The longest match is followed if it covers over 0.1 of the prompt and meets that bound, or if nobody meets it; else
 * argmin queued·(in flight + 1), the form for instances that prefill and decode (+1, or idle instances tie whatever the
 * work). Ties at random. Tuning: a request's turn and its expected match are not known here, so a match over a tenth of
 * the prompt stands for a later turn; slack 1; pending work from the ledger.
 */
export const smetric: PolicyKind = {
  name: 'smetric',
  describe: 'follows the match while it meets a TTFT bound, else least queued work × requests',
  needsPrediction: false,
  create: createSmetric,
};

function ownWork(request: RoutingRequest, candidate: CandidateState): number {
  const m = uncachedTokens(request, candidate);
  return m * (LINEAR + ATTENTION * Math.max(0, request.promptTokens - m / 2));
}

function pendingWork({ pendingTokens, pendingPromptTokens }: CandidateState): number {
  return pendingTokens * (LINEAR + ATTENTION * PENDING_CONTEXT_SHARE * pendingPromptTokens);
}

/** Work per ms of one full chunk on an unloaded engine. */
function lawRate(candidate: CandidateState): number {
  return peakPrefillPerMs(candidate) * (LINEAR + (ATTENTION * candidate.report.limits.maxBatchedTokens) / 2);
}

function createSmetric(): Policy {
  const rates = new PerInstance<Rate>(() => ({ values: [], next: 0, p90: 0 }));
  return {
    choose(input) {
      const choice = choose(input, rates);
      return { ...choice, memo: ownWork(input.request, input.candidates[choice.index] as CandidateState) };
    },
    observe({ instance, ok, ttftMs }, memo) {
      if (!ok || ttftMs === null || !(ttftMs > 0) || typeof memo !== 'number') return;
      const rate = rates.of(instance);
      rate.values[rate.next] = memo / ttftMs;
      rate.next = (rate.next + 1) % RATE_WINDOW;
      const { length } = rate.values;
      if (length >= RATE_MIN)
        rate.p90 = rate.values.toSorted((a, b) => a - b)[Math.min(length - 1, Math.floor(0.9 * length))] as number;
    },
  };
}

function choose({ request, candidates, scores, rng }: ChoiceInput, rates: PerInstance<Rate>) {
  const n = candidates.length;
  const boundMs = BASE_SLO_MS + SLO_MS_PER_TOKEN * request.promptTokens;
  let best = 0;
  for (const { hitTokens } of candidates) best = Math.max(best, hitTokens);
  let anyMeets = false;
  let bestMeets = false;
  for (let i = 0; i < n; i++) {
    const candidate = candidates[i] as CandidateState;
    const queued = pendingWork(candidate) + ownWork(request, candidate);
    const rate = rates.peek(candidate.report.instance)?.p90 || lawRate(candidate);
    const meets = queued / rate <= boundMs;
    anyMeets ||= meets;
    bestMeets ||= meets && candidate.hitTokens === best;
    scores[i] = queued * (candidate.inFlight + 1);
  }
  const follow = best > AFFINITY * request.promptTokens && (bestMeets || !anyMeets);
  if (follow) {
    for (let i = 0; i < n; i++)
      if ((candidates[i] as CandidateState).hitTokens !== best) scores[i] = (scores[i] as number) + 1e15;
  }
  return argminRandomTies(scores, n, rng);
}
