import type { CandidateState } from '../../../../shared/candidate.ts';
import { policies, type PolicyName } from '../../../../shared/choice/policies/index.ts';
import { seededRng } from '../../../../shared/env.ts';
import { candidateOf } from '../../../../shared/candidate.ts';
import { reportOf } from '../../../helpers/reports.ts';
import { choiceInput, policyEnv } from '../inputs.ts';

/** What a made-up instance looks like at one request, and its time to first token. */
export interface World {
  candidates(draw: () => number): CandidateState[];
  ttftMs(candidate: CandidateState, promptTokens: number): number;
}

/** A candidate of a kind, with requests in flight that all decode. */
export function busy(instance: string, kind: string, decoding: number, waiting = 0): CandidateState {
  return candidateOf(
    reportOf(
      instance,
      { kind },
      {
        inFlight: decoding + waiting,
        decoding,
        waiting,
        usedTokens: 500 * decoding,
        decodeContextTokens: 500 * decoding,
      },
    ),
  );
}

/** Runs a policy in a world, ten requests a second; each ends at once. Returns which candidate each request got. */
export function live(name: PolicyName, world: World, requests: number, seed = 1): number[] {
  const env = policyEnv(seed);
  const policy = policies[name].create(env);
  const draw = seededRng(seed + 1);
  const chosen: number[] = [];
  for (let i = 0; i < requests; i++) {
    env.clock.advance(100);
    const promptTokens = 200 + Math.floor(draw() * 1800);
    const candidates = world.candidates(draw);
    const { index, memo } = policy.choose(
      choiceInput(candidates, { promptTokens, nowMs: env.clock.nowMs(), rng: env.rng }),
    );
    chosen.push(index);
    const candidate = candidates[index] as CandidateState;
    const ttftMs = world.ttftMs(candidate, promptTokens);
    policy.observe?.(
      {
        instance: candidate.report.instance,
        atMs: env.clock.nowMs(),
        ok: true,
        ttftMs,
        tpotMs: ttftMs / 20,
        outputTokens: 100,
      },
      memo,
    );
  }
  return chosen;
}

/** Share of the last `count` choices that went to the candidate at `index`. */
export function shareOf(index: number, chosen: readonly number[], count: number): number {
  return chosen.slice(-count).filter((one) => one === index).length / count;
}
