import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { seededRng } from '../../../shared/env.ts';
import { LodestarError } from '../../../shared/errors.ts';
import { calibrationPath, findGpu, loadGpus } from '../../../sim/engine/gpus.ts';
import { linearStepTime, withNoise } from '../../../sim/engine/step-time.ts';
import type { StepBatch } from '../../../sim/engine/step.ts';

interface Example {
  what: string;
  prefill: { tokens: number; ctx: number }[];
  decode: { ctx: number; count: number }[];
  step_ms: Record<string, number>;
}

const { examples } = JSON.parse(readFileSync(calibrationPath, 'utf8')) as { examples: Example[] };

function toBatch(example: Pick<Example, 'prefill' | 'decode'>): StepBatch {
  const batch = { prefillTokens: 0, chunks: 0, prefillPairs: 0, decodes: 0, decodeContext: 0 };
  for (const { tokens, ctx } of example.prefill) {
    batch.chunks++;
    batch.prefillTokens += tokens;
    batch.prefillPairs += tokens * (ctx + tokens / 2);
  }
  for (const { ctx, count } of example.decode) {
    batch.decodes += count;
    batch.decodeContext += ctx * count;
  }
  return batch;
}

describe('step time', () => {
  const gpus = loadGpus();

  it('has examples for every GPU', () => expect(examples.length).toBeGreaterThanOrEqual(4));

  for (const example of examples) {
    it(`agrees with the calibration: ${example.what}`, () => {
      for (const [key, ms] of Object.entries(example.step_ms)) {
        expect(linearStepTime(findGpu(gpus, key))(toBatch(example)), key).toBeCloseTo(ms, 2);
      }
    });
  }

  it('bends at T0 and with c5', () => {
    const bent = linearStepTime({ c0: 10, c1: 0.1, c2: 0, c3: 1, c4: 0.01, T0: 50, c5: 0.02 });
    const decode = [{ ctx: 100, count: 4 }];
    expect(bent(toBatch({ prefill: [], decode }))).toBeCloseTo(10 + 4 + 4, 9);
    expect(bent(toBatch({ prefill: [{ tokens: 96, ctx: 0 }], decode }))).toBeCloseTo(10 + 0.1 * 50 + 5 + 4 + 8, 9);
  });

  it('has noise of mean 1 and the asked spread', () => {
    const noisy = withNoise(() => 20, 0.1, seededRng(7));
    const draws = Array.from({ length: 4000 }, () => noisy(toBatch({ prefill: [], decode: [] })) / 20);
    const mean = draws.reduce((sum, x) => sum + x, 0) / draws.length;
    const spread = Math.sqrt(draws.reduce((sum, x) => sum + (x - mean) ** 2, 0) / draws.length);
    expect(mean).toBeCloseTo(1, 2);
    expect(spread).toBeCloseTo(0.1, 2);
  });

  it('lists the known GPUs when asked for another', () => {
    expect(() => findGpu(gpus, 'H900')).toThrow(LodestarError);
    expect(() => findGpu(gpus, 'H900')).toThrow(/A30, V100, L20, A100/);
  });
});
