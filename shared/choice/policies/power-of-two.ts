import type { CandidateState } from '../../candidate.ts';
import type { Choice, ChoiceInput, PolicyKind } from './policy.ts';

/**
 * Power of two choices (SMG, vllm-router: power_of_two): of two instances drawn at random the one with fewer requests
 * in flight, ties at random. Nothing to tune; the load is the ledgers' with this entry's reservations, where those
 * routers count only their own or scrape.
 */
export const powerOfTwo: PolicyKind = {
  name: 'power-of-two',
  describe: 'the less loaded of two drawn at random',
  needsPrediction: false,
  create: () => ({ choose: choosePowerOfTwo }),
};

function choosePowerOfTwo({ candidates, scores, rng }: ChoiceInput): Choice {
  const n = candidates.length;
  for (let i = 0; i < n; i++) scores[i] = (candidates[i] as CandidateState).inFlight;
  if (n === 1) return { index: 0, propensity: 1 };
  const first = Math.min(n - 1, Math.floor(rng() * n));
  const other = Math.min(n - 2, Math.floor(rng() * (n - 1)));
  const second = other >= first ? other + 1 : other;
  const difference = (scores[first] as number) - (scores[second] as number);
  const index = difference < 0 || (difference === 0 && rng() < 0.5) ? first : second;

  // It would be chosen again with every partner that is busier, and half the time with one that ties.
  const own = scores[index] as number;
  let wins = -0.5;
  for (let i = 0; i < n; i++) {
    const load = scores[i] as number;
    wins += load > own ? 1 : load === own ? 0.5 : 0;
  }
  return { index, propensity: (2 * wins) / (n * (n - 1)) };
}
