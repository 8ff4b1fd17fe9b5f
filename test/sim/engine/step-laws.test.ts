import { describe, expect, it } from 'vitest';
import { seededRng } from '../../../shared/env.ts';
import { findGpu, loadGpus } from '../../../sim/engine/gpus.ts';
import { makeStepTime, paddedDecodes, rooflineStepTime, thermalDrift } from '../../../sim/engine/step-laws.ts';
import type { StepBatch } from '../../../sim/engine/step.ts';
import { linearStepTime } from '../../../sim/engine/step-time.ts';
import { VirtualClock } from '../../helpers/virtual-clock.ts';

const gpus = loadGpus();
const a100 = findGpu(gpus, 'A100');

function batch(chunk: number, cached: number, decodes: number, context: number): StepBatch {
  return {
    prefillTokens: chunk,
    chunks: chunk > 0 ? 1 : 0,
    prefillPairs: chunk * (cached + chunk / 2),
    decodes,
    decodeContext: decodes * context,
  };
}

/** Decode batches, prefill chunks and mixed batches as a loaded instance runs them. */
const representative: StepBatch[] = [
  ...[1, 4, 12, 24, 48, 96].flatMap((decodes) => [300, 1500].map((context) => batch(0, 0, decodes, context))),
  ...[128, 256, 512, 1024, 2048].flatMap((chunk) => [0, 4000].map((cached) => batch(chunk, cached, 0, 0))),
  ...[128, 512, 2000].flatMap((chunk) => [8, 32, 64].map((decodes) => batch(chunk, 1000, decodes, 1000))),
];

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

describe('step laws', () => {
  it.each([...gpus.keys()])('agree with the linear law on average: %s', (key) => {
    const gpu = findGpu(gpus, key);
    const linear = makeStepTime('linear', gpu, seededRng(1), new VirtualClock());
    for (const law of ['roofline', 'rough'] as const) {
      const model = makeStepTime(law, gpu, seededRng(1), new VirtualClock());
      const ratios = representative.map((one) => mean(Array.from({ length: 50 }, () => model(one))) / linear(one));
      expect(mean(ratios), law).toBeGreaterThan(0.85);
      expect(mean(ratios), law).toBeLessThan(1.2);
      // Another form: some steps are well off the line, and none absurdly.
      expect(Math.max(...ratios.map((ratio) => Math.abs(ratio - 1))), law).toBeGreaterThan(0.1);
      expect(Math.min(...ratios), law).toBeGreaterThan(0.6);
      expect(Math.max(...ratios), law).toBeLessThan(1.6);
    }
  });

  it('repeat with the seed and differ between instances', () => {
    const steps = (seed: number): number[] => {
      const model = makeStepTime('rough', a100, seededRng(seed), new VirtualClock());
      return representative.map((one) => model(one));
    };
    expect(steps(3)).toEqual(steps(3));
    expect(steps(4)).not.toEqual(steps(3));
  });

  it('follow a GPU that bends by itself', () => {
    const bent = { c0: 12, c1: 0.06, c2: 3e-6, c3: 0.04, c4: 8e-5, T0: 100, c5: 6e-5 };
    const ratios = representative.map((one) => rooflineStepTime(bent, seededRng(1))(one) / linearStepTime(bent)(one));
    expect(mean(ratios)).toBeGreaterThan(0.8);
    expect(mean(ratios)).toBeLessThan(1.2);
  });
});

describe('roofline', () => {
  const model = rooflineStepTime(a100, seededRng(1));

  it('pads decode batches to the captured graphs', () => {
    expect([0, 1, 2, 3, 5, 8, 9, 256, 257, 512, 600].map(paddedDecodes)).toEqual([
      0, 1, 2, 4, 8, 8, 16, 256, 272, 512, 600,
    ]);
    expect(model(batch(0, 0, 17, 0))).toBe(model(batch(0, 0, 24, 0)));
    expect(model(batch(0, 0, 25, 0)) - model(batch(0, 0, 24, 0))).toBeCloseTo(8 * a100.c3, 9);
  });

  it('computes few tokens for free and small chunks badly', () => {
    const attentionFree = (tokens: number): number => model({ ...batch(tokens, 0, 0, 0), prefillPairs: 0 });
    expect(attentionFree(60)).toBe(attentionFree(10));
    expect(attentionFree(256) / 256).toBeGreaterThan(1.1 * (attentionFree(2048) / 2048));
    const one = batch(512, 4000, 0, 0);
    expect(model({ ...one, chunks: 8 })).toBeGreaterThan(model(one));
  });

  it('makes decode attention dearer beside a prefill, by the instance', () => {
    const factors = Array.from({ length: 40 }, (_, seed) => {
      const own = rooflineStepTime(a100, seededRng(seed));
      return (own(batch(512, 0, 16, 2000)) - own(batch(512, 0, 16, 0))) / (a100.c4 * 32_000);
    });
    expect(Math.min(...factors)).toBeGreaterThanOrEqual(1.4 - 1e-9);
    expect(Math.max(...factors)).toBeLessThanOrEqual(2 + 1e-9);
    expect(Math.max(...factors) - Math.min(...factors)).toBeGreaterThan(0.3);
  });
});

describe('rough', () => {
  it('has noise of mean 1 and rare stalls', () => {
    const one = batch(0, 0, 16, 1000);
    const base = rooflineStepTime(a100, seededRng(5))(one);
    const model = makeStepTime('rough', a100, seededRng(5), new VirtualClock());
    const steps = Array.from({ length: 40_000 }, () => model(one));
    const stalls = steps.filter((ms) => ms > base * 1.5 + 40);
    const calm = steps.filter((ms) => ms <= base * 1.5 + 40);
    const hot = mean(calm) / base;
    expect(hot).toBeGreaterThan(0.995);
    expect(hot).toBeLessThan(1.155);
    const spread = Math.sqrt(mean(calm.map((ms) => (ms / mean(calm) - 1) ** 2)));
    expect(spread).toBeCloseTo(0.05, 2);
    expect(stalls.length).toBeGreaterThan(5);
    expect(stalls.length).toBeLessThan(60);
    expect(Math.max(...stalls)).toBeLessThan(base * 1.5 + 300);
  });

  it('drifts slowly within its bounds', () => {
    const drift = thermalDrift(seededRng(9));
    const hour = Array.from({ length: 3600 }, (_, s) => drift(s * 1000));
    expect(Math.min(...hour)).toBeGreaterThanOrEqual(1);
    expect(Math.max(...hour)).toBeLessThanOrEqual(1.15);
    expect(Math.max(...hour) - Math.min(...hour)).toBeGreaterThan(0.05);
    expect(Math.max(...hour.slice(1).map((factor, s) => Math.abs(factor - (hour[s] ?? factor))))).toBeLessThan(0.005);
  });
});
