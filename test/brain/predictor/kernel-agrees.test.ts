import { beforeAll, describe, expect, it } from 'vitest';
import { loadBackend, type Tf } from '../../../brain/predictor/backend.ts';
import { TrainableNet } from '../../../brain/predictor/model.ts';
import { type Rng, seededRng } from '../../../shared/env.ts';
import { FEATURE_COUNT } from '../../../shared/features.ts';
import { makeScorer } from '../../../shared/predictor/kernel.ts';
import {
  clampResiduals,
  type DenseLayer,
  HEAD_COUNT,
  normaliseRows,
  type ResidualNet,
  typedArrayScorer,
} from '../../../shared/predictor/net.ts';

const SHAPES = [[64, 64], [16], [128, 32, 8], [4, 4, 4], [256]];
const ROWS = 37;
let tf: Tf;

beforeAll(async () => {
  tf = (await loadBackend({ backend: 'wasm', tfjsNodeGpuDir: '', gpuMemoryLimitMb: 512 })).tf;
});

describe('scores of a net', () => {
  it.each(SHAPES.map((hidden, seed) => ({ hidden, seed })))(
    'agree between TensorFlow.js, kernel and typed arrays for $hidden',
    ({ hidden, seed }) => {
      const rng = seededRng(seed);
      const net = randomNet(hidden, rng);
      const rows = Float32Array.from({ length: ROWS * FEATURE_COUNT }, () => 12 * rng() - 2);
      const kernel = new Float32Array(ROWS * HEAD_COUNT);
      const arrays = new Float32Array(ROWS * HEAD_COUNT);
      const scorer = makeScorer(net, ROWS);
      scorer.score(rows, ROWS, kernel);
      typedArrayScorer(net, ROWS).score(rows, ROWS, arrays);

      const input = new Float32Array(ROWS * FEATURE_COUNT);
      normaliseRows(net, rows, ROWS, input);
      const model = new TrainableNet(tf, net);
      const library = tf.tidy(() =>
        Float32Array.from(model.forward(tf.tensor2d(input, [ROWS, FEATURE_COUNT])).dataSync()),
      );
      model.dispose();
      clampResiduals(library, ROWS, library);

      expect(scorer.kind).toBe('simd');
      expect(largestDifference(kernel, library)).toBeLessThan(1e-5);
      expect(largestDifference(arrays, library)).toBeLessThan(1e-5);
      expect(library.some((value) => Math.abs(value) > 0.01 && Math.abs(value) < 3)).toBe(true);
    },
  );
});

function randomNet(hidden: readonly number[], rng: Rng): ResidualNet {
  const widths = [FEATURE_COUNT, ...hidden, HEAD_COUNT];
  const layers = widths.slice(1).map((outputs, i): DenseLayer => {
    const inputs = widths[i] as number;
    return {
      inputs,
      outputs,
      weights: floats(inputs * outputs, rng, 1 / Math.sqrt(inputs)),
      bias: floats(outputs, rng, 0.3),
    };
  });
  const scale = floats(FEATURE_COUNT, rng, 0.5);
  scale[3] = 0;
  return { shift: floats(FEATURE_COUNT, rng, 4), scale, layers };
}

function floats(length: number, rng: Rng, bound: number): Float32Array {
  return Float32Array.from({ length }, () => (2 * rng() - 1) * bound);
}

function largestDifference(a: Float32Array, b: Float32Array): number {
  return a.reduce((largest, value, i) => Math.max(largest, Math.abs(value - (b[i] as number))), 0);
}
