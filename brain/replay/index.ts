import type { Rng } from '../../shared/env.ts';
import { FEATURE_COUNT } from '../../shared/features.ts';
import { LABEL_COUNT } from '../predictor/fit.ts';
import { DiversityPool } from './diversity.ts';
import type { Experience } from './experience.ts';
import { LawAge } from './law-age.ts';
import { RecencyPool } from './recency.ts';

/** Part of a round's rows that the diversity pool gives, if it has them. */
const DIVERSITY_SHARE = 0.25;

export interface ReplayLimits {
  recencySize: number;
  diversitySize: number;
  maxAgeMs: number;
}

/** What a round trains on. */
export interface TrainingData {
  rows: Float32Array;
  labels: Float32Array;
  n: number;
}

/**
 * Replay buffer: the newest samples, and older ones spread over the state space. Age, not count, makes samples leave it
 * for good.
 */
export class ReplayBuffer {
  private readonly limits: ReplayLimits;
  private readonly rng: Rng;
  private readonly recency: RecencyPool;
  private readonly diversity: DiversityPool;
  private readonly laws = new LawAge();

  constructor(limits: ReplayLimits, rng: Rng) {
    this.limits = limits;
    this.rng = rng;
    this.recency = new RecencyPool(limits.recencySize);
    this.diversity = new DiversityPool(limits.diversitySize);
  }

  sizes(): { recency: number; diversity: number } {
    return { recency: this.recency.size, diversity: this.diversity.size };
  }

  /**
   * True if the law behind the experience is no longer in force: it judges nothing and teaches nothing. `atWallMs`:
   * when its request was dispatched.
   */
  isOutdated(experience: Experience, atWallMs: number): boolean {
    this.laws.note(experience, atWallMs);
    return this.laws.isOutdated(experience);
  }

  add(experience: Experience): void {
    const older = this.recency.add(experience);
    if (older) this.diversity.add(older, this.rng);
  }

  /** Lets go of samples that are too old. `nowMs` is Unix time. */
  prune(nowMs: number): void {
    const before = nowMs - this.limits.maxAgeMs;
    this.recency.prune(before);
    this.diversity.prune(before);
  }

  newest(max: number): Experience[] {
    return this.recency.newest(max);
  }

  /**
   * Up to `max` rows: a quarter spread over the state space, the rest the newest; less those of laws that are no longer
   * in force.
   */
  draw(max: number): TrainingData {
    const spread = this.diversity.draw(Math.max(Math.floor(max * DIVERSITY_SHARE), max - this.recency.size), this.rng);
    const chosen = [...spread, ...this.recency.newest(max - spread.length)].filter((one) => !this.laws.isOutdated(one));
    const rows = new Float32Array(chosen.length * FEATURE_COUNT);
    const labels = new Float32Array(chosen.length * LABEL_COUNT);
    chosen.forEach(({ row, ttft, tpot }, i) => {
      rows.set(row, i * FEATURE_COUNT);
      labels.set([ttft, tpot], i * LABEL_COUNT);
    });
    return { rows, labels, n: chosen.length };
  }
}
