import { type CandidateState, uncachedTokens } from '../../candidate.ts';
import { decodeStepMs } from '../../predictor/step-law.ts';
import { PerInstance } from '../learners/per-instance.ts';
import { argminRandomTies } from '../ties.ts';
import type { Choice, ChoiceInput, Policy, PolicyKind } from './policy.ts';
import { hitRatioOf, ownPrefillMs } from './readings.ts';

/** History that makes an instance's load, as in the original, in slots so that it is bounded. */
const SLOT_MS = 10_000;
const SLOTS = 18;
/** Cached share of the prompt above which the cache is exploited. */
const EXPLOIT_ABOVE = 0.5;
/** A holder of the match this many times as loaded as the idlest instance gives the request away. */
const STEAL_RATIO = 1.5;
/** Loads that differ by less than a tenth of the window are no imbalance: at a cold start every ratio is infinite. */
const STEAL_FLOOR_MS = 0.1 * SLOTS * SLOT_MS;

/** What was sent to one instance over the window. */
class Window {
  private readonly workMs = new Float64Array(SLOTS);
  private readonly ownTokens = new Float64Array(SLOTS);
  private readonly hitTokens = new Float64Array(SLOTS);
  private slot = 0;
  work = 0;
  own = 0;
  hits = 0;

  /** Drops slots that have left the window. */
  roll(nowMs: number): void {
    const slot = Math.floor(nowMs / SLOT_MS);
    if (slot === this.slot) return;
    for (let age = Math.min(SLOTS, slot - this.slot); age > 0; age--) {
      const at = (((slot - age + 1) % SLOTS) + SLOTS) % SLOTS;
      this.workMs[at] = 0;
      this.ownTokens[at] = 0;
      this.hitTokens[at] = 0;
    }
    this.slot = slot;
    this.work = sum(this.workMs);
    this.own = sum(this.ownTokens);
    this.hits = sum(this.hitTokens);
  }

  add(workMs: number, ownTokens: number, hitTokens: number): void {
    const at = ((this.slot % SLOTS) + SLOTS) % SLOTS;
    this.workMs[at] = (this.workMs[at] as number) + workMs;
    this.ownTokens[at] = (this.ownTokens[at] as number) + ownTokens;
    this.hitTokens[at] = (this.hitTokens[at] as number) + hitTokens;
    this.work += workMs;
    this.own += ownTokens;
    this.hits += hitTokens;
  }
}

function sum(values: Float64Array): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

/**
 * Preble's E2 (arXiv 2407.00023; AIBrix's prefix-cache-preble @ e3e10f9). If over half of the prompt is cached
 * somewhere: the least loaded of the holders of the longest match, unless it is 1.5 times as loaded as the idlest
 * instance. Else, or then, argmin of
 *
 *   load over 3 minutes (prefill and decode time of what was sent there) + prefill time of what it evicts, as far as that is reused + own prefill time
 *
 * in ms, ties at random. Tuning: all times by the instance's own step-time law in place of curves of one model on an
 * A6000, and the expected answer length in place of 45 tokens; a decode counts with its share of the batch's steps.
 * What is evicted is a guess: uncached tokens sent within the window beyond the KV size, reused as often as prompts hit
 * there. The window holds this entry's own requests, as the original's.
 */
export const preble: PolicyKind = {
  name: 'preble',
  describe: 'exploits a match of over half the prompt, else least load, eviction and prefill time',
  needsPrediction: false,
  create: createPreble,
};

function createPreble(): Policy {
  const windows = new PerInstance(() => new Window());
  return {
    choose(input) {
      const choice = choosePreble(input, windows);
      const { request } = input;
      const candidate = input.candidates[choice.index] as CandidateState;
      const batch = candidate.decoding + 1;
      const stepMs = decodeStepMs(candidate.report.law, batch, candidate.decodeContextTokens + request.promptTokens);
      windows
        .of(candidate.report.instance)
        .add(
          ownPrefillMs(request, candidate) + (request.outputTokens * stepMs) / batch,
          uncachedTokens(request, candidate),
          candidate.hitTokens,
        );
      return choice;
    },
  };
}

function choosePreble({ request, candidates, scores, nowMs, rng }: ChoiceInput, windows: PerInstance<Window>): Choice {
  const n = candidates.length;
  let longest = 0;
  let idlest = Infinity;
  let holder = Infinity;
  for (const candidate of candidates) {
    const window = windows.of(candidate.report.instance);
    window.roll(nowMs);
    idlest = Math.min(idlest, window.work);
    if (candidate.hitTokens > longest) {
      longest = candidate.hitTokens;
      holder = window.work;
    } else if (candidate.hitTokens === longest) holder = Math.min(holder, window.work);
  }
  const steal = holder > STEAL_RATIO * idlest && holder - idlest > STEAL_FLOOR_MS;
  const exploit = longest > EXPLOIT_ABOVE * request.promptTokens && !steal;
  for (let i = 0; i < n; i++) {
    const candidate = candidates[i] as CandidateState;
    const window = windows.of(candidate.report.instance);
    if (exploit) {
      scores[i] = window.work - hitRatioOf(request, candidate) * 1e12;
      continue;
    }
    const own = uncachedTokens(request, candidate);
    const evicted = Math.min(own, Math.max(0, window.own + own - candidate.report.limits.kvTokens));
    const reuse = window.hits / Math.max(1, window.hits + window.own);
    scores[i] = window.work + candidate.report.law.c1 * evicted * reuse + ownPrefillMs(request, candidate);
  }
  return argminRandomTies(scores, n, rng);
}
