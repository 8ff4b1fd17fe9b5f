import type { Rng } from '../../shared/env.ts';
import type { Experience } from './experience.ts';

/**
 * Samples that are no longer recent, spread over the state space: when the pool is full, a random one of the fullest
 * stratum makes room, so that what is rare stays and what is common does not drown it.
 */
export class DiversityPool {
  private readonly max: number;
  private readonly strata = new Map<string, Experience[]>();
  private count = 0;

  constructor(max: number) {
    this.max = max;
  }

  get size(): number {
    return this.count;
  }

  add(experience: Experience, rng: Rng): void {
    const stratum = this.strata.get(experience.stratum);
    if (stratum) stratum.push(experience);
    else this.strata.set(experience.stratum, [experience]);
    this.count += 1;
    if (this.count > this.max) this.evict(rng);
  }

  prune(beforeMs: number): void {
    for (const [name, stratum] of this.strata) {
      const kept = stratum.filter(({ arrivedMs }) => arrivedMs >= beforeMs);
      this.count -= stratum.length - kept.length;
      if (kept.length > 0) this.strata.set(name, kept);
      else this.strata.delete(name);
    }
  }

  /** Up to `max` samples, drawn from the strata in turn, so that each has its share. */
  draw(max: number, rng: Rng): Experience[] {
    const strata = [...this.strata.values()].map((stratum) => shuffle(stratum, rng));
    const drawn: Experience[] = [];
    for (let turn = 0; drawn.length < Math.min(max, this.count); turn++) {
      for (const stratum of strata) {
        const experience = stratum[turn];
        if (experience && drawn.length < max) drawn.push(experience);
      }
    }
    return drawn;
  }

  private evict(rng: Rng): void {
    let fullest: Experience[] = [];
    for (const stratum of this.strata.values()) if (stratum.length > fullest.length) fullest = stratum;
    const at = Math.floor(rng() * fullest.length);
    fullest[at] = fullest.at(-1) as Experience;
    fullest.pop();
    this.count -= 1;
  }
}

function shuffle(items: readonly Experience[], rng: Rng): Experience[] {
  const copy = [...items];
  for (let i = copy.length - 1; i > 0; i--) {
    const j = Math.floor(rng() * (i + 1));
    [copy[i], copy[j]] = [copy[j] as Experience, copy[i] as Experience];
  }
  return copy;
}
