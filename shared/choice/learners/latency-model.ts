import type { Clock, Rng } from '../../env.ts';
import { runSliced } from './sliced.ts';
import { type LatencySample, StratifiedStore } from './stratified-store.ts';
import { trainTrees, type Trees } from './trees.ts';

const RETRAIN_EVERY_MS = 10_000;
const MIN_SAMPLES = 100;
/** Rows of one training, which bounds what it costs. */
const MAX_ROWS = 6000;

/** Columns of a row; the TPOT model reads the first of them alone. */
export const LATENCY_FEATURES = 10;
const TPOT_FEATURES = 7;

interface Models {
  ttft: Trees;
  tpot: Trees;
}

/**
 * llm-d's latency predictor: trees for TTFT and TPOT from a stratified store, trained from scratch every 10 s when
 * there are new samples and at least 100 in all. The models in force stay until the next ones are complete.
 */
export class LatencyModel {
  /** trainings completed */
  rounds = 0;
  private readonly clock: Clock;
  private readonly rng: Rng;
  private readonly store = new StratifiedStore();
  private models: Models | undefined;
  private training = false;
  private lastMs: number;

  constructor(clock: Clock, rng: Rng) {
    this.clock = clock;
    this.rng = rng;
    this.lastMs = clock.nowMs();
  }

  get ready(): boolean {
    return this.models !== undefined;
  }

  ttftMs(row: Float32Array): number {
    return Math.max(0, this.models?.ttft.predict(row) ?? 0);
  }

  tpotMs(row: Float32Array): number {
    return Math.max(0, this.models?.tpot.predict(row) ?? 0);
  }

  /** Keeps a sample, and trains when that is due. */
  add(sample: LatencySample, waiting: number, kvUsageRatio: number, hitRatio: number): void {
    this.store.add(sample, waiting, kvUsageRatio, hitRatio);
    if (this.training || this.store.size < MIN_SAMPLES || this.clock.nowMs() - this.lastMs < RETRAIN_EVERY_MS) return;
    this.lastMs = this.clock.nowMs();
    this.training = true;
    runSliced(this.clock, this.train(), (models) => {
      this.models = models;
      this.training = false;
      this.rounds += 1;
    });
  }

  private *train(): Generator<number, Models> {
    const samples = this.store.take(MAX_ROWS);
    const answered = samples.filter(({ tpotMs }) => tpotMs !== null);
    const ttft = yield* trainTrees(
      { ...tableOf(samples, ({ ttftMs }) => ttftMs), features: LATENCY_FEATURES },
      this.rng,
    );
    const tpot = yield* trainTrees(
      { ...tableOf(answered, ({ tpotMs }) => tpotMs ?? 0), features: TPOT_FEATURES },
      this.rng,
    );
    return { ttft, tpot };
  }
}

function tableOf(samples: readonly LatencySample[], target: (sample: LatencySample) => number) {
  const rows = new Float32Array(samples.length * LATENCY_FEATURES);
  for (let s = 0; s < samples.length; s++) rows.set((samples[s] as LatencySample).row, s * LATENCY_FEATURES);
  return { rows, targets: Float32Array.from(samples, target), stride: LATENCY_FEATURES };
}
