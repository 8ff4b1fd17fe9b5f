import { describe, expect, it } from 'vitest';
import { loadBackend } from '../../../brain/predictor/backend.ts';
import { fitNet, normalisation } from '../../../brain/predictor/fit.ts';
import { initialNet, isFiniteNet, renormalise } from '../../../brain/predictor/model.ts';
import { seededRng } from '../../../shared/env.ts';
import { FEATURE_COUNT } from '../../../shared/features.ts';
import { HEAD_COUNT, type ResidualNet, typedArrayScorer } from '../../../shared/predictor/net.ts';

const N = 800;

function rowsOf(seed: number, scale = 3, shift = 1): Float32Array {
  const rng = seededRng(seed);
  return Float32Array.from({ length: N * FEATURE_COUNT }, (_, i) =>
    i % FEATURE_COUNT === 5 ? 2 : shift + scale * rng(),
  );
}

function scores(net: ResidualNet, rows: Float32Array): Float32Array {
  const out = new Float32Array(N * HEAD_COUNT);
  typedArrayScorer(net, N).score(rows, N, out);
  return out;
}

describe('a net', () => {
  it('computes the same under another normalisation', () => {
    const rng = seededRng(4);
    const first = normalisation(rowsOf(1), N);
    const net = initialNet([16, 16], first.shift, first.scale, [0.1, 0.2, 0.3, 0.4], rng);
    for (const layer of net.layers) layer.weights.forEach((_, i) => (layer.weights[i] = (rng() - 0.5) * 0.4));
    const rows = rowsOf(2, 4, 0.5);
    const second = normalisation(rows, N);
    expect(second.scale[5]).toBe(0);
    const moved = scores(renormalise(net, second.shift, second.scale), rows);
    scores(net, rows).forEach((value, i) => expect(moved[i] as number).toBeCloseTo(value, 3));
  });

  it('starts by predicting its bias everywhere', () => {
    const { shift, scale } = normalisation(rowsOf(1), N);
    const out = scores(initialNet([16], shift, scale, [0.1, 0.2, 0.3, 0.4], seededRng(1)), rowsOf(2));
    [0.1, 0.2, 0.3, 0.4].forEach((bias, head) => expect(out[4 * HEAD_COUNT + head]).toBeCloseTo(bias));
  });

  it('is told apart when it holds a value that is not finite', () => {
    const { shift, scale } = normalisation(rowsOf(1), N);
    const net = initialNet([8], shift, scale, [0, 0, 0, 0], seededRng(1));
    expect(isFiniteNet(net)).toBe(true);
    net.layers[1]?.weights.set([Number.NaN], 3);
    expect(isFiniteNet(net)).toBe(false);
  });

  it.each(['wasm', 'cpu'] as const)(
    'is trained alike on %s, missing labels left out, without leaking tensors',
    async (backend) => {
      const { tf } = await loadBackend({ backend, tfjsNodeGpuDir: '', gpuMemoryLimitMb: 512 });
      const rows = rowsOf(3);
      const labels = new Float32Array(N * 2);
      for (let i = 0; i < N; i++) {
        labels[2 * i] = 0.5 * (rows[i * FEATURE_COUNT] as number) - 1;
        labels[2 * i + 1] = i % 3 === 0 ? Number.NaN : -0.2;
      }
      const before = tf.memory().numTensors;
      const { net, lossBefore, lossAfter } = fitNet(tf, { champion: null, hidden: [16], rows, labels, n: N, seed: 1 });
      expect(tf.memory().numTensors).toBe(before);
      expect(lossAfter).toBeLessThan(0.8 * lossBefore);
      const out = scores(net, rows);
      const error =
        rows.reduce(
          (sum, _, i) => (i < N ? sum + Math.abs((out[i * HEAD_COUNT] as number) - (labels[2 * i] as number)) : sum),
          0,
        ) / N;
      expect(error).toBeLessThan(0.3);
      expect(out[2]).toBeCloseTo(-0.2, 1);
      const warm = fitNet(tf, { champion: net, hidden: [16], rows, labels, n: N, seed: 2 });
      expect(warm.lossBefore).toBeLessThan(lossBefore);
    },
  );
});
