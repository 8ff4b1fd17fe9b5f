import type { CandidateState } from '../../../shared/candidate.ts';
import { policies, type PolicyName } from '../../../shared/choice/policies/index.ts';
import type { ChoiceInput, Policy, PolicyEnv } from '../../../shared/choice/policies/policy.ts';
import { seededRng } from '../../../shared/env.ts';
import { requestOf } from '../../helpers/reports.ts';
import { VirtualClock } from '../../helpers/virtual-clock.ts';

/** What a policy with state of its own gets: time that stands still, and seeded draws. */
export function policyEnv(seed = 1): PolicyEnv & { clock: VirtualClock } {
  return { clock: new VirtualClock(), rng: seededRng(seed) };
}

/** A choice among `candidates` for a request of `promptTokens`. */
export function choiceInput(
  candidates: CandidateState[],
  changes: Partial<ChoiceInput> & { promptTokens?: number } = {},
): ChoiceInput {
  const { promptTokens = 1000, ...rest } = changes;
  return {
    request: requestOf(promptTokens),
    candidates,
    costs: new Float64Array(candidates.length),
    temperatureMs: 0.5,
    scores: new Float64Array(candidates.length),
    nowMs: 1000,
    rng: seededRng(1),
    ...rest,
  };
}

/** How often each candidate is chosen in `times` choices by one policy, without outcomes in between. */
export function counts(policy: Policy, input: ChoiceInput, times = 200): number[] {
  const taken = input.candidates.map(() => 0);
  for (let i = 0; i < times; i++) taken[policy.choose(input).index]! += 1;
  return taken;
}

/** The choice of a fresh policy. */
export function chosen(
  name: PolicyName,
  candidates: CandidateState[],
  changes: Parameters<typeof choiceInput>[1] = {},
): number {
  return policies[name].create(policyEnv()).choose(choiceInput(candidates, changes)).index;
}
