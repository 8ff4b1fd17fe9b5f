import type { Clock, Rng } from '../../env.ts';
import { kCentre } from './k-centre.ts';
import { type Mlp, SLICE_ROWS, trainMlp } from './mlp.ts';
import { runSliced } from './sliced.ts';

const HIDDEN = [128, 128, 128];
const ROUND_EVERY_MS = 30_000;
/** Samples before the first round, and new ones before each. */
const MIN_SAMPLES = 100;
const MIN_NEW = 50;
const FIFO = 5000;
const REPLAY = 512;
/** Rows among which the replay set is chosen: the choice is quadratic. */
const REPLAY_POOL = 2048;
/** Rows passed per round over all epochs, which bounds what a round costs. */
const ROW_PASSES = 60_000;
const MAX_EPOCHS = 20;

interface Sample {
  row: Float32Array;
  reward: number;
}

/** A trained network with the statistics of the rows it was trained on: they change together. */
interface Model {
  net: Mlp;
  mean: Float32Array;
  deviation: Float32Array;
}

/**
 * The reward predictor of the Lodestar paper (gangmuk/Lodestar @ 23da2a0, reward_predictor.py, replay_buffer.py): every
 * 30 s with at least 50 new samples, a fresh 128-128-128-1 network on the new batch, the last 5000 before it and a
 * replay set, by greedy k-centre on the last hidden layer of the model before. Rows are z-scored by the round's own
 * statistics. The network in force stays until the next one is complete.
 */
export class RewardModel {
  /** rounds completed */
  rounds = 0;
  private readonly clock: Clock;
  private readonly rng: Rng;
  private readonly dimension: number;
  private readonly scratch: Float32Array;
  private fresh: Sample[] = [];
  private fifo: Sample[] = [];
  private replay: Sample[] = [];
  private model: Model | undefined;
  private training = false;
  private lastRoundMs: number;

  constructor(clock: Clock, rng: Rng, dimension: number) {
    this.clock = clock;
    this.rng = rng;
    this.dimension = dimension;
    this.scratch = new Float32Array(dimension);
    this.lastRoundMs = clock.nowMs();
  }

  get ready(): boolean {
    return this.model !== undefined;
  }

  /** Predicted reward of a row; 0 without a model. */
  predict(row: Float32Array): number {
    const { model, scratch } = this;
    if (!model) return 0;
    standardise(row, model, scratch, 0);
    return model.net.forward(scratch, 0);
  }

  /** Keeps a sample, and starts a round when one is due. */
  add(row: Float32Array, reward: number): void {
    this.fresh.push({ row, reward });
    // More than a FIFO's worth between two rounds: the oldest would not be trained on next time either.
    if (this.fresh.length > 2 * FIFO) this.fresh = this.fresh.slice(-FIFO);
    if (this.training || this.clock.nowMs() - this.lastRoundMs < ROUND_EVERY_MS) return;
    if (this.fresh.length < MIN_NEW || this.fresh.length + this.fifo.length < MIN_SAMPLES) return;
    this.lastRoundMs = this.clock.nowMs();
    this.training = true;
    const samples = [...new Set([...this.fresh, ...this.fifo, ...this.replay])];
    this.fifo = [...this.fifo, ...this.fresh].slice(-FIFO);
    this.fresh = [];
    runSliced(this.clock, this.round(samples), () => {
      this.training = false;
    });
  }

  private *round(samples: Sample[]): Generator<number, void> {
    const { dimension, rng } = this;
    const stats = statistics(samples, dimension);
    const rows = new Float32Array(samples.length * dimension);
    for (let s = 0; s < samples.length; s++) standardise((samples[s] as Sample).row, stats, rows, s * dimension);
    const targets = Float32Array.from(samples, ({ reward }) => reward);
    yield samples.length;

    const epochs = Math.max(1, Math.min(MAX_EPOCHS, Math.floor(ROW_PASSES / samples.length)));
    const net = yield* trainMlp({ rows, targets, dimension }, [dimension, ...HIDDEN, 1], epochs, rng);
    // A network that diverged must not serve.
    if (Number.isFinite(net.forward(rows, 0))) this.model = { net, ...stats };
    this.rounds += 1;
    yield* this.chooseReplay(samples, rows, net);
  }

  /** The most diverse of the round's samples, under its own model, for the next round. */
  private *chooseReplay(samples: Sample[], rows: Float32Array, net: Mlp): Generator<number, void> {
    const pool =
      samples.length <= REPLAY_POOL
        ? samples.map((_, i) => i)
        : Array.from({ length: REPLAY_POOL }, () => Math.floor(this.rng() * samples.length));
    const width = HIDDEN.at(-1) as number;
    const hidden = new Float32Array(pool.length * width);
    for (let from = 0; from < pool.length; from += SLICE_ROWS) {
      const to = Math.min(pool.length, from + SLICE_ROWS);
      for (let p = from; p < to; p++) {
        net.forward(rows, (pool[p] as number) * this.dimension);
        hidden.set(net.lastHidden, p * width);
      }
      yield to - from;
    }
    const taken = yield* kCentre(hidden, width, REPLAY, this.rng);
    this.replay = taken.map((p) => samples[pool[p] as number] as Sample);
  }
}

type Statistics = Omit<Model, 'net'>;

function standardise(row: Float32Array, { mean, deviation }: Statistics, out: Float32Array, at: number): void {
  for (let i = 0; i < row.length; i++)
    out[at + i] = ((row[i] as number) - (mean[i] as number)) / (deviation[i] as number);
}

function statistics(samples: readonly Sample[], dimension: number): Statistics {
  const sum = new Float64Array(dimension);
  const squares = new Float64Array(dimension);
  for (const { row } of samples) {
    for (let i = 0; i < dimension; i++) {
      const value = row[i] as number;
      sum[i]! += value;
      squares[i]! += value * value;
    }
  }
  const n = samples.length;
  const mean = Float32Array.from(sum, (total) => total / n);
  // A feature that never varied gets deviation 1: it is then 0 for all.
  const deviation = Float32Array.from(
    squares,
    (total, i) => Math.sqrt(Math.max(0, total / n - ((sum[i] as number) / n) ** 2)) || 1,
  );
  return { mean, deviation };
}
