import type { Rng } from '../../shared/env.ts';

/** An integer from [0, n). */
export function below(rng: Rng, n: number): number {
  return Math.floor(rng() * n);
}

/** One of a list. */
export function pick<T>(rng: Rng, list: readonly T[]): T {
  return list[below(rng, list.length)] as T;
}
