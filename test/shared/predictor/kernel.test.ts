import { describe, expect, test } from 'vitest';
import { seededRng } from '../../../shared/env.ts';
import { FEATURE_COUNT } from '../../../shared/features.ts';
import { makeScorer } from '../../../shared/predictor/kernel.ts';
import { HEAD_COUNT, RESIDUAL_CLAMP, typedArrayScorer } from '../../../shared/predictor/net.ts';
import { randomNet } from '../../helpers/tables.ts';

const MAX_ROWS = 64;

function rowsOf(seed: number, n: number): Float32Array {
  const rng = seededRng(seed);
  return Float32Array.from({ length: n * FEATURE_COUNT }, () => (rng() - 0.3) * 12);
}

describe('SIMD kernel and typed arrays', () => {
  test.each([[[4]], [[8, 8]], [[16]], [[20, 12]], [[64, 64]], [[36, 4, 60]], [[256, 256]], [[4, 4, 4, 4, 4]]])(
    'agree on a net of %j',
    (hidden) => {
      const net = randomNet(seededRng(hidden.length * 1000 + (hidden[0] as number)), hidden);
      const simd = makeScorer(net, MAX_ROWS);
      const plain = typedArrayScorer(net, MAX_ROWS);
      expect(simd.kind).toBe('simd');
      const a = new Float32Array(MAX_ROWS * HEAD_COUNT);
      const b = new Float32Array(MAX_ROWS * HEAD_COUNT);
      for (const n of [1, 2, 7, MAX_ROWS, 3]) {
        const rows = rowsOf(n, n);
        simd.score(rows, n, a);
        plain.score(rows, n, b);
        for (let i = 0; i < n * HEAD_COUNT; i++) {
          expect(Math.abs((a[i] as number) - (b[i] as number))).toBeLessThan(1e-5);
          expect(Math.abs(a[i] as number)).toBeLessThanOrEqual(RESIDUAL_CLAMP);
        }
      }
    },
  );

  test('a row scores the same alone and among others', () => {
    const scorer = makeScorer(randomNet(seededRng(1), [32, 32]), MAX_ROWS);
    const rows = rowsOf(5, MAX_ROWS);
    const all = new Float32Array(MAX_ROWS * HEAD_COUNT);
    scorer.score(rows, MAX_ROWS, all);
    const one = new Float32Array(HEAD_COUNT);
    for (let row = 0; row < MAX_ROWS; row += 9) {
      scorer.score(rows.subarray(row * FEATURE_COUNT), 1, one);
      expect([...one]).toEqual([...all.subarray(row * HEAD_COUNT, (row + 1) * HEAD_COUNT)]);
    }
  });

  test.each(['simd', 'typed-arrays'])('nonsense in, the prior out: %s', (kind) => {
    const net = randomNet(seededRng(2), [8]);
    const scorer = kind === 'simd' ? makeScorer(net, 4) : typedArrayScorer(net, 4);
    const rows = rowsOf(1, 3);
    rows[0] = Number.NaN;
    rows[FEATURE_COUNT] = Infinity;
    rows[2 * FEATURE_COUNT] = -Infinity;
    const out = new Float32Array(3 * HEAD_COUNT);
    scorer.score(rows, 3, out);
    expect([...out].every(Number.isFinite)).toBe(true);
    expect([...out.subarray(0, HEAD_COUNT)]).toEqual([0, 0, 0, 0]);
  });
});
