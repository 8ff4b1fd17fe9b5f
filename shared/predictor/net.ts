import { FEATURE_COUNT } from '../features.ts';

/** Outputs of the residual net, each log(observed / prior): means and 90th percentiles. */
export const HEADS = ['ttft', 'ttftP90', 'tpot', 'tpotP90'] as const;
export const HEAD_COUNT = HEADS.length;

/** Widest hidden layer and deepest net that a table may bring: bounds the scoring buffers. */
export const MAX_LAYER_WIDTH = 256;
export const MAX_LAYERS = 6;

/**
 * A dense layer, ReLU after all but the last. `weights` is row-major [inputs][outputs]; `outputs` is a multiple of 4
 * for the SIMD kernel.
 */
export interface DenseLayer {
  inputs: number;
  outputs: number;
  weights: Float32Array;
  bias: Float32Array;
}

/** The residual MLP as agents receive it. A raw feature x enters as clamp((x − shift)·scale, ±5). */
export interface ResidualNet {
  shift: Float32Array;
  scale: Float32Array;
  layers: DenseLayer[];
}

/** Bound on a normalised feature: what lies outside the training data cannot blow the net up. */
export const INPUT_CLAMP = 5;
/** Bound on a predicted log ratio: e³ ≈ 20 times above or below the prior. */
export const RESIDUAL_CLAMP = 3;

/**
 * Scores rows: `rows` holds n × FEATURE_COUNT raw features, `out` receives n × HEAD_COUNT log ratios, clamped to
 * ±RESIDUAL_CLAMP.
 */
export interface NetScorer {
  readonly kind: 'simd' | 'typed-arrays';
  score(rows: Float32Array, n: number, out: Float32Array): void;
}

/** Normalises n raw rows from `rows` into `into`. */
export function normaliseRows(net: ResidualNet, rows: Float32Array, n: number, into: Float32Array): void {
  const { shift, scale } = net;
  for (let row = 0, at = 0; row < n; row++) {
    for (let i = 0; i < FEATURE_COUNT; i++, at++) {
      const x = ((rows[at] as number) - (shift[i] as number)) * (scale[i] as number);
      into[at] = x > INPUT_CLAMP ? INPUT_CLAMP : x < -INPUT_CLAMP ? -INPUT_CLAMP : x;
    }
  }
}

/** Clamps n × HEAD_COUNT log ratios from `from` into `into`; NaN becomes 0, the prior. */
export function clampResiduals(from: Float32Array, n: number, into: Float32Array): void {
  for (let i = 0; i < n * HEAD_COUNT; i++) {
    const r = from[i] as number;
    into[i] = r > RESIDUAL_CLAMP ? RESIDUAL_CLAMP : r < -RESIDUAL_CLAMP ? -RESIDUAL_CLAMP : r === r ? r : 0;
  }
}

/** Scorer in plain typed arrays, for hosts whose engine lacks WebAssembly SIMD. */
export function typedArrayScorer(net: ResidualNet, maxRows: number): NetScorer {
  const width = Math.max(FEATURE_COUNT, ...net.layers.map((layer) => layer.outputs));
  let front = new Float32Array(maxRows * width);
  let back = new Float32Array(maxRows * width);
  return {
    kind: 'typed-arrays',
    score(rows, n, out) {
      normaliseRows(net, rows, n, front);
      net.layers.forEach((layer, index) => {
        dense(layer, front, n, back, index < net.layers.length - 1);
        [front, back] = [back, front];
      });
      clampResiduals(front, n, out);
    },
  };
}

function dense(layer: DenseLayer, from: Float32Array, n: number, into: Float32Array, relu: boolean): void {
  const { inputs, outputs, weights, bias } = layer;
  for (let row = 0; row < n; row++) {
    const inBase = row * inputs;
    const outBase = row * outputs;
    for (let o = 0; o < outputs; o += 4) {
      let a = bias[o] as number;
      let b = bias[o + 1] as number;
      let c = bias[o + 2] as number;
      let d = bias[o + 3] as number;
      for (let i = 0, w = o; i < inputs; i++, w += outputs) {
        const x = from[inBase + i] as number;
        a += x * (weights[w] as number);
        b += x * (weights[w + 1] as number);
        c += x * (weights[w + 2] as number);
        d += x * (weights[w + 3] as number);
      }
      into[outBase + o] = relu && a < 0 ? 0 : a;
      into[outBase + o + 1] = relu && b < 0 ? 0 : b;
      into[outBase + o + 2] = relu && c < 0 ? 0 : c;
      into[outBase + o + 3] = relu && d < 0 ? 0 : d;
    }
  }
}
