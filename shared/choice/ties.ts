import type { Rng } from '../env.ts';
import type { Choice } from './policies/policy.ts';

/**
 * Index of the lowest of the first `n` scores, ties at random; an all-idle fleet must not send everything to its first
 * instance.
 */
export function argminRandomTies(scores: Float64Array, n: number, rng: Rng): Choice {
  let best = Infinity;
  let ties = 0;
  let index = 0;
  for (let i = 0; i < n; i++) {
    const score = scores[i] as number;
    if (score < best) {
      best = score;
      ties = 1;
      index = i;
    } else if (score === best) {
      ties += 1;
      // Reservoir of one: each of the ties is kept with equal probability.
      if (rng() * ties < 1) index = i;
    }
  }
  return { index, propensity: ties > 0 ? 1 / ties : 1 };
}

/**
 * Draws an index with probability ∝ exp(−(score − best)/temperature). Scores that are not finite are never drawn unless
 * all are.
 */
export function softmin(scores: Float64Array, n: number, temperature: number, rng: Rng): Choice {
  let best = Infinity;
  for (let i = 0; i < n; i++)
    best = Math.min(best, (scores[i] as number) === (scores[i] as number) ? (scores[i] as number) : Infinity);
  if (best === Infinity) return { index: Math.min(n - 1, Math.floor(rng() * n)), propensity: 1 / n };
  let sum = 0;
  for (let i = 0; i < n; i++) sum += weight(scores[i] as number, best, temperature);
  let draw = rng() * sum;
  let index = 0;
  for (let i = 0; i < n; i++) {
    const w = weight(scores[i] as number, best, temperature);
    if (w <= 0) continue;
    index = i;
    draw -= w;
    if (draw < 0) break;
  }
  return { index, propensity: weight(scores[index] as number, best, temperature) / sum };
}

function weight(score: number, best: number, temperature: number): number {
  if (!(score < Infinity)) return 0;
  return Math.exp((best - score) / temperature);
}
