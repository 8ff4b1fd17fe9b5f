import type { Tensor, Tensor2D, Variable } from '@tensorflow/tfjs-core';
import type { Rng } from '../../shared/env.ts';
import { FEATURE_COUNT } from '../../shared/features.ts';
import { type DenseLayer, HEAD_COUNT, HEADS, type ResidualNet } from '../../shared/predictor/net.ts';
import type { Tf } from './backend.ts';

/** A dense layer whose parameters TensorFlow.js trains: weights [inputs][outputs], bias [outputs]. */
interface TrainableLayer {
  weights: Variable;
  bias: Variable;
}

/**
 * The residual net as TensorFlow.js trains it. Input: normalised rows [n][FEATURE_COUNT]; output: log ratios
 * [n][HEAD_COUNT], unclamped.
 */
export class TrainableNet {
  readonly variables: Variable[];
  private readonly tf: Tf;
  private readonly layers: TrainableLayer[];

  constructor(tf: Tf, net: ResidualNet) {
    this.tf = tf;
    this.layers = net.layers.map(({ inputs, outputs, weights, bias }) => ({
      weights: variableOf(tf, tf.tensor2d(weights, [inputs, outputs])),
      bias: variableOf(tf, tf.tensor1d(bias)),
    }));
    this.variables = this.layers.flatMap(({ weights, bias }) => [weights, bias]);
  }

  forward(rows: Tensor2D): Tensor2D {
    const { tf } = this;
    return this.layers.reduce((x, { weights, bias }, index) => {
      const sum = tf.add(tf.matMul(x, weights as unknown as Tensor2D), bias);
      return (index < this.layers.length - 1 ? tf.relu(sum) : sum) as Tensor2D;
    }, rows);
  }

  /** Takes a share of every weight away; biases stay. */
  shrink(share: number): void {
    this.tf.tidy(() => {
      for (const { weights } of this.layers) weights.assign(this.tf.mul(weights, 1 - share));
    });
  }

  /** The present parameters, with the given normalisation. */
  toNet(shift: Float32Array, scale: Float32Array): ResidualNet {
    const layers = this.layers.map(({ weights, bias }): DenseLayer => {
      const [inputs, outputs] = weights.shape as [number, number];
      return {
        inputs,
        outputs,
        weights: Float32Array.from(weights.dataSync()),
        bias: Float32Array.from(bias.dataSync()),
      };
    });
    return { shift, scale, layers };
  }

  dispose(): void {
    for (const variable of this.variables) variable.dispose();
  }
}

function variableOf(tf: Tf, initial: Tensor): Variable {
  const variable = tf.variable(initial);
  initial.dispose();
  return variable;
}

/**
 * A net to start from: hidden layers after He (uniform in ±√(6/inputs)), the last layer zero but for its bias, so that
 * it predicts the same log ratio everywhere until it has learned better.
 */
export function initialNet(
  hidden: readonly number[],
  shift: Float32Array,
  scale: Float32Array,
  outputBias: readonly number[],
  rng: Rng,
): ResidualNet {
  const widths = [FEATURE_COUNT, ...hidden, HEAD_COUNT];
  const layers = widths.slice(1).map((outputs, index): DenseLayer => {
    const inputs = widths[index] as number;
    const last = index === widths.length - 2;
    const bound = Math.sqrt(6 / inputs);
    return {
      inputs,
      outputs,
      weights: Float32Array.from({ length: inputs * outputs }, () => (last ? 0 : (2 * rng() - 1) * bound)),
      bias: last ? Float32Array.from(outputBias) : new Float32Array(outputs),
    };
  });
  return { shift, scale, layers };
}

/**
 * The same function under another normalisation: with x' = (x − s')·k', the old input (x − s)·k is x'·k/k' + (s' −
 * s)·k, so the first layer's weights scale by k/k' and its bias takes the rest. A feature that is or was constant (k'
 * or k = 0) gets weight zero.
 */
export function renormalise(net: ResidualNet, shift: Float32Array, scale: Float32Array): ResidualNet {
  const [first, ...rest] = net.layers as [DenseLayer, ...DenseLayer[]];
  const weights = first.weights.slice();
  const bias = first.bias.slice();
  for (let i = 0; i < first.inputs; i++) {
    const k = net.scale[i] as number;
    const offset = ((shift[i] as number) - (net.shift[i] as number)) * k;
    const factor = scale[i] === 0 ? 0 : k / (scale[i] as number);
    for (let o = 0; o < first.outputs; o++) {
      const w = first.weights[i * first.outputs + o] as number;
      bias[o] = (bias[o] as number) + w * offset;
      weights[i * first.outputs + o] = w * factor;
    }
  }
  return { shift, scale, layers: [{ ...first, weights, bias }, ...rest] };
}

/** The net whose means say `share` of what this one's do; its 90th percentiles stay. */
export function scaleMeans(net: ResidualNet, share: number): ResidualNet {
  const last = net.layers.at(-1) as DenseLayer;
  const factors = HEADS.map((head) => (head === 'ttft' || head === 'tpot' ? share : 1));
  const scaled = (values: Float32Array): Float32Array =>
    values.map((value, i) => value * (factors[i % HEAD_COUNT] as number));
  return {
    ...net,
    layers: [...net.layers.slice(0, -1), { ...last, weights: scaled(last.weights), bias: scaled(last.bias) }],
  };
}

/** True if every parameter is a finite number. */
export function isFiniteNet(net: ResidualNet): boolean {
  return [net.shift, net.scale, ...net.layers.flatMap(({ weights, bias }) => [weights, bias])].every((values) =>
    values.every(Number.isFinite),
  );
}
