import type { Scalar, Tensor2D } from '@tensorflow/tfjs-core';
import { type Rng, seededRng } from '../../shared/env.ts';
import { FEATURE_COUNT } from '../../shared/features.ts';
import { HEAD_COUNT, normaliseRows, type ResidualNet } from '../../shared/predictor/net.ts';
import type { Tf } from './backend.ts';
import { initialNet, renormalise, TrainableNet } from './model.ts';

/** Labels of a row: log(observed/prior) of TTFT and of TPOT; NaN where it was not observed. */
export const LABEL_COUNT = 2;

/** One training round's work. Plain data, so that it can be posted to a thread. */
export interface FitRequest {
  /** weights to start from; null: a new net */
  champion: ResidualNet | null;
  hidden: readonly number[];
  /** n × FEATURE_COUNT raw features */
  rows: Float32Array;
  /** n × LABEL_COUNT */
  labels: Float32Array;
  n: number;
  seed: number;
  /** how long to train; default: until a new net has learned what the rows say */
  effort?: Effort;
}

/** What a training spends: at least `epochs` passes over the rows and at least `steps` steps. */
export interface Effort {
  epochs: number;
  steps: number;
  learningRate: number;
}

export interface FitResult {
  net: ResidualNet;
  steps: number;
  /** mean loss over the first and over the last pass */
  lossBefore: number;
  lossAfter: number;
}

const BATCH_MAX = 256;
const BATCH_MIN = 16;
/** For one training that must suffice. */
const THOROUGH: Effort = { epochs: 8, steps: 128, learningRate: 1e-3 };
/**
 * Weight decay (decoupled from Adam: Loshchilov and Hutter, arXiv 1711.05101) is DECAY_ROWS / n: pulling the net
 * towards one value everywhere counts like a fixed number of rows, so a few rows move it little and thousands freely.
 * Formula: docs/learning.md.
 */
const DECAY_ROWS = 3000;
const DECAY_MAX = 30;
/**
 * Log ratio up to which an error of the means counts by its square, and beyond by its size. Small: medians are learned,
 * which a stalled engine or a misread label cannot pull away.
 */
const HUBER_DELTA = 0.1;
const QUANTILE = 0.9;
/** Standard deviation under which a feature counts as constant. */
const DEVIATION_MIN = 1e-4;
/**
 * Columns of the output (HEADS in shared/predictor/net.ts): the label of each, and which are means and which 90th
 * percentiles.
 */
const HEAD_LABEL = [0, 0, 1, 1] as const;
const HEAD_IS_MEAN = [1, 0, 1, 0];
const HEAD_IS_P90 = [0, 1, 0, 1];

/**
 * Trains a net on the rows: Adam, Huber loss for the means, pinball loss for the 90th percentiles, missing labels
 * masked, weights decaying.
 */
export function fitNet(tf: Tf, request: FitRequest): FitResult {
  const { rows, labels, n } = request;
  const rng = seededRng(request.seed);
  const { shift, scale } = normalisation(rows, n);
  const start = request.champion
    ? renormalise(request.champion, shift, scale)
    : initialNet(request.hidden, shift, scale, headBiases(labels, n), rng);
  const inputs = new Float32Array(n * FEATURE_COUNT);
  normaliseRows(start, rows, n, inputs);

  const batch = Math.max(BATCH_MIN, Math.min(BATCH_MAX, Math.ceil(n / 4)));
  const { learningRate, ...least } = request.effort ?? THOROUGH;
  const epochs = Math.max(least.epochs, Math.ceil(least.steps / Math.ceil(n / batch)));
  const model = new TrainableNet(tf, start);
  const optimizer = tf.train.adam(learningRate);
  const losses: number[] = [];
  let steps = 0;
  try {
    for (let epoch = 0; epoch < epochs; epoch++) {
      const order = shuffled(n, rng);
      const before = steps;
      let sum = 0;
      for (let at = 0; at < n; at += batch) {
        const chosen = order.subarray(at, Math.min(n, at + batch));
        sum += step(tf, model, optimizer, inputs, labels, chosen, HUBER_DELTA) * chosen.length;
        steps += 1;
      }
      model.shrink(learningRate * Math.min(DECAY_MAX, DECAY_ROWS / n) * (steps - before));
      losses.push(sum / n);
    }
    return {
      net: model.toNet(shift, scale),
      steps,
      lossBefore: losses[0] as number,
      lossAfter: losses.at(-1) as number,
    };
  } finally {
    optimizer.dispose();
    model.dispose();
  }
}

/** Mean and inverse deviation of each feature; 0 for a constant one, which then does not enter. */
export function normalisation(rows: Float32Array, n: number): { shift: Float32Array; scale: Float32Array } {
  const shift = new Float32Array(FEATURE_COUNT);
  const scale = new Float32Array(FEATURE_COUNT);
  for (let i = 0; i < FEATURE_COUNT; i++) {
    let sum = 0;
    for (let row = 0; row < n; row++) sum += rows[row * FEATURE_COUNT + i] as number;
    const mean = sum / n;
    let squares = 0;
    for (let row = 0; row < n; row++) squares += ((rows[row * FEATURE_COUNT + i] as number) - mean) ** 2;
    const deviation = Math.sqrt(squares / n);
    shift[i] = mean;
    scale[i] = deviation > DEVIATION_MIN ? 1 / deviation : 0;
  }
  return { shift, scale };
}

/** What a net that knows nothing should say: the median and the 90th percentile of each label. */
function headBiases(labels: Float32Array, n: number): number[] {
  return HEAD_LABEL.map((label, head) => {
    const values: number[] = [];
    for (let row = 0; row < n; row++) {
      const value = labels[row * LABEL_COUNT + label] as number;
      if (Number.isFinite(value)) values.push(value);
    }
    if (values.length === 0) return 0;
    values.sort((a, b) => a - b);
    return values[Math.floor((values.length - 1) * (HEAD_IS_MEAN[head] ? 0.5 : QUANTILE))] as number;
  });
}

/** One Adam step on the chosen rows; returns their mean loss. */
function step(
  tf: Tf,
  model: TrainableNet,
  optimizer: ReturnType<Tf['train']['adam']>,
  inputs: Float32Array,
  labels: Float32Array,
  chosen: Uint32Array,
  delta: number,
): number {
  const x = new Float32Array(chosen.length * FEATURE_COUNT);
  const y = new Float32Array(chosen.length * HEAD_COUNT);
  const mask = new Float32Array(chosen.length * HEAD_COUNT);
  let known = 0;
  chosen.forEach((row, i) => {
    x.set(inputs.subarray(row * FEATURE_COUNT, (row + 1) * FEATURE_COUNT), i * FEATURE_COUNT);
    HEAD_LABEL.forEach((label, head) => {
      const value = labels[row * LABEL_COUNT + label] as number;
      if (Number.isNaN(value)) return;
      y[i * HEAD_COUNT + head] = value;
      mask[i * HEAD_COUNT + head] = 1;
      known += 1;
    });
  });
  if (known === 0) return 0;
  return tf.tidy(() => {
    const rows = tf.tensor2d(x, [chosen.length, FEATURE_COUNT]);
    const target = tf.tensor2d(y, [chosen.length, HEAD_COUNT]);
    const weight = tf.tensor2d(mask, [chosen.length, HEAD_COUNT]);
    const cost = optimizer.minimize(
      () => lossOf(tf, model.forward(rows), target, weight, known, delta),
      true,
      model.variables,
    );
    return (cost as Scalar).dataSync()[0] as number;
  });
}

/** Mean over the known labels of Huber loss (means) and pinball loss (90th percentiles). */
function lossOf(tf: Tf, predicted: Tensor2D, target: Tensor2D, weight: Tensor2D, known: number, delta: number): Scalar {
  const error = tf.sub(target, predicted);
  const size = tf.abs(error);
  const near = tf.minimum(size, delta);
  const huber = tf.add(tf.mul(tf.square(near), 0.5), tf.mul(tf.sub(size, near), delta));
  const pinball = tf.maximum(tf.mul(error, QUANTILE), tf.mul(error, QUANTILE - 1));
  const each = tf.add(tf.mul(huber, tf.tensor1d(HEAD_IS_MEAN)), tf.mul(pinball, tf.tensor1d(HEAD_IS_P90)));
  return tf.div(tf.sum(tf.mul(each, weight)), known) as Scalar;
}

function shuffled(n: number, rng: Rng): Uint32Array {
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(rng() * (i + 1));
    const swap = order[i] as number;
    order[i] = order[j] as number;
    order[j] = swap;
  }
  return order;
}
