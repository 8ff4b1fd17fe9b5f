import type { Rng } from '../../env.ts';

/** Rows per slice of training: about two milliseconds. */
export const SLICE_ROWS = 32;
const MAX_BATCH = 256;
/**
 * Batches are smaller while rows are few: the authors' start with thousands, and a few dozen steps of Adam would leave
 * a cold start untaught.
 */
const MIN_BATCH = 32;
const MIN_STEPS = 16;
const LEARNING_RATE = 3e-4;
const LEARNING_DECAY = 0.95;
const WEIGHT_DECAY = 1e-5;
const MAX_GRADIENT = 1;
const DROPOUT = 0.1;
const BETA1 = 0.9;
const BETA2 = 0.999;
const EPSILON = 1e-8;

interface Layer {
  inputs: number;
  outputs: number;
  /** where its weights (inputs × outputs, by input) start; the biases follow them */
  at: number;
}

/**
 * Fully connected network with ReLU between its layers and one output; Xavier-uniform start. All parameters lie in one
 * array.
 */
export class Mlp {
  readonly layers: Layer[] = [];
  readonly parameters: Float32Array;
  /** output of each layer of the last row that went through, before it the input; ReLU applied */
  readonly activations: Float32Array[];

  constructor(sizes: readonly number[], rng: Rng) {
    let at = 0;
    for (let l = 0; l + 1 < sizes.length; l++) {
      const inputs = sizes[l] as number;
      const outputs = sizes[l + 1] as number;
      this.layers.push({ inputs, outputs, at });
      at += inputs * outputs + outputs;
    }
    this.parameters = new Float32Array(at);
    this.activations = sizes.map((size) => new Float32Array(size));
    for (const layer of this.layers) {
      const bound = Math.sqrt(6 / (layer.inputs + layer.outputs));
      for (let i = 0; i < layer.inputs * layer.outputs; i++) this.parameters[layer.at + i] = bound * (2 * rng() - 1);
    }
  }

  /** Output for the row at `rows[offset]`; `drop` (training) changes a hidden layer's activations in place. */
  forward(rows: Float32Array, offset: number, drop?: (layer: number, activations: Float32Array) => void): number {
    const input = this.activations[0] as Float32Array;
    for (let i = 0; i < input.length; i++) input[i] = rows[offset + i] as number;
    const last = this.layers.length - 1;
    for (let l = 0; l <= last; l++) {
      const layer = this.layers[l] as Layer;
      const to = this.activations[l + 1] as Float32Array;
      propagate(this.parameters, layer, this.activations[l] as Float32Array, to);
      if (l === last) break;
      for (let o = 0; o < to.length; o++) if ((to[o] as number) < 0) to[o] = 0;
      drop?.(l, to);
    }
    return (this.activations[last + 1] as Float32Array)[0] as number;
  }

  /** Activations of the last hidden layer of the last row that went through. */
  get lastHidden(): Float32Array {
    return this.activations[this.layers.length - 1] as Float32Array;
  }
}

function propagate(
  parameters: Float32Array,
  { inputs, outputs, at }: Layer,
  from: Float32Array,
  to: Float32Array,
): void {
  const biases = at + inputs * outputs;
  for (let o = 0; o < outputs; o++) to[o] = parameters[biases + o] as number;
  for (let i = 0; i < inputs; i++) {
    const value = from[i] as number;
    // Half of the hidden units are off, and most of a one-hot.
    if (value === 0) continue;
    const row = at + i * outputs;
    for (let o = 0; o < outputs; o++) to[o] = (to[o] as number) + value * (parameters[row + o] as number);
  }
}

/** Rows of `dimension` floats and their targets. */
export interface TrainingSet {
  rows: Float32Array;
  targets: Float32Array;
  dimension: number;
}

/**
 * Trains a fresh network of `sizes` on mean squared error: Adam (3e-4, × 0.95 per epoch, weight decay 1e-5), gradient
 * norm clipped at 1, batches of n/16 rows within 32 and 256, dropout 0.1 after the first two hidden layers while
 * training. Yields the rows of each slice; returns the network.
 */
export function* trainMlp(
  set: TrainingSet,
  sizes: readonly number[],
  epochs: number,
  rng: Rng,
): Generator<number, Mlp> {
  const net = new Mlp(sizes, rng);
  const trainer = new Trainer(net, rng);
  const n = set.targets.length;
  const batch = Math.min(MAX_BATCH, Math.max(MIN_BATCH, Math.floor(n / MIN_STEPS)));
  const order = Int32Array.from({ length: n }, (_, i) => i);
  let rate = LEARNING_RATE;
  for (let epoch = 0; epoch < epochs; epoch++) {
    shuffle(order, rng);
    for (let from = 0; from < n; from += batch) {
      const to = Math.min(n, from + batch);
      for (let at = from; at < to; at += SLICE_ROWS) {
        const end = Math.min(to, at + SLICE_ROWS);
        for (let k = at; k < end; k++) {
          const row = order[k] as number;
          trainer.accumulate(set.rows, row * set.dimension, set.targets[row] as number, to - from);
        }
        if (end === to) trainer.step(rate);
        yield end - at;
      }
    }
    rate *= LEARNING_DECAY;
  }
  return net;
}

function shuffle(order: Int32Array, rng: Rng): void {
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(rng() * (i + 1));
    const kept = order[i] as number;
    order[i] = order[j] as number;
    order[j] = kept;
  }
}

/** Gradients of one network, and Adam's moments. */
class Trainer {
  private readonly net: Mlp;
  private readonly rng: Rng;
  private readonly gradient: Float32Array;
  private readonly first: Float32Array;
  private readonly second: Float32Array;
  private readonly deltas: Float32Array[];
  private steps = 0;
  private readonly drop = (layer: number, activations: Float32Array): void => {
    if (layer >= 2) return;
    for (let i = 0; i < activations.length; i++)
      activations[i] = this.rng() < DROPOUT ? 0 : (activations[i] as number) / (1 - DROPOUT);
  };

  constructor(net: Mlp, rng: Rng) {
    this.net = net;
    this.rng = rng;
    this.gradient = new Float32Array(net.parameters.length);
    this.first = new Float32Array(net.parameters.length);
    this.second = new Float32Array(net.parameters.length);
    this.deltas = net.activations.map((activations) => new Float32Array(activations.length));
  }

  /** Adds one row's gradient of the squared error, divided by the batch's size. */
  accumulate(rows: Float32Array, offset: number, target: number, batch: number): void {
    const { net, deltas } = this;
    const output = net.forward(rows, offset, this.drop);
    (deltas[net.layers.length] as Float32Array)[0] = (2 * (output - target)) / batch;
    for (let l = net.layers.length - 1; l >= 0; l--) {
      // What enters the second layer passed through one ReLU and one dropout, hence its scale.
      const scale = l === 1 || l === 2 ? 1 / (1 - DROPOUT) : 1;
      this.backward(
        net.layers[l] as Layer,
        net.activations[l] as Float32Array,
        deltas[l + 1] as Float32Array,
        l === 0 ? undefined : (deltas[l] as Float32Array),
        scale,
      );
    }
  }

  private backward(
    { inputs, outputs, at }: Layer,
    from: Float32Array,
    delta: Float32Array,
    into: Float32Array | undefined,
    scale: number,
  ): void {
    const { gradient } = this;
    const { parameters } = this.net;
    const biases = at + inputs * outputs;
    for (let o = 0; o < outputs; o++) gradient[biases + o] = (gradient[biases + o] as number) + (delta[o] as number);
    for (let i = 0; i < inputs; i++) {
      const value = from[i] as number;
      // A unit that is off (ReLU or dropout) neither gives nor takes a gradient.
      if (value === 0) {
        if (into) into[i] = 0;
        continue;
      }
      const row = at + i * outputs;
      let sum = 0;
      for (let o = 0; o < outputs; o++) {
        const d = delta[o] as number;
        gradient[row + o] = (gradient[row + o] as number) + value * d;
        sum += (parameters[row + o] as number) * d;
      }
      if (into) into[i] = sum * scale;
    }
  }

  /** One step of Adam with the gradient gathered since the last. */
  step(rate: number): void {
    const { gradient, first, second } = this;
    const { parameters } = this.net;
    this.steps += 1;
    let squares = 0;
    for (const g of gradient) squares += g * g;
    const clip = Math.min(1, MAX_GRADIENT / (Math.sqrt(squares) + 1e-6));
    const correct1 = 1 - BETA1 ** this.steps;
    const correct2 = 1 - BETA2 ** this.steps;
    for (let i = 0; i < parameters.length; i++) {
      const value = parameters[i] as number;
      const g = (gradient[i] as number) * clip + WEIGHT_DECAY * value;
      const m = BETA1 * (first[i] as number) + (1 - BETA1) * g;
      const v = BETA2 * (second[i] as number) + (1 - BETA2) * g * g;
      first[i] = m;
      second[i] = v;
      parameters[i] = value - (rate * (m / correct1)) / (Math.sqrt(v / correct2) + EPSILON);
    }
    gradient.fill(0);
  }
}
