import { expect, it } from 'vitest';
import { ModelStats } from '../../brain/model-stats.ts';
import { parseSampleBatch } from '../../brain/sample-batch.ts';
import { sampleOf } from '../helpers/samples.ts';

function parse(samples: unknown[]): { taken: number; invalid: number } {
  const batch = parseSampleBatch({ t: 'samples', batch: 0, dropped: 0, samples });
  return { taken: batch.samples.length, invalid: batch.invalid };
}

it('takes what an attempt can have shown', () => {
  const failed = sampleOf({}, { status: 'failed', ttftMs: null, tpotMs: null, e2eMs: 0, promptTokens: null });
  const estimated = sampleOf({ stream: false }, { ttftMs: 505, tpotMs: null });
  expect(parse([sampleOf(), failed, estimated])).toEqual({ taken: 3, invalid: 0 });
});

it.each([
  ['TTFT that is no number', sampleOf({}, { ttftMs: NaN })],
  ['infinite TTFT', sampleOf({}, { ttftMs: Infinity })],
  ['TTFT below zero', sampleOf({}, { ttftMs: -1 })],
  ['TTFT of zero', sampleOf({}, { ttftMs: 0 })],
  ['TTFT of 31 years', sampleOf({}, { ttftMs: 1e12, e2eMs: 1e12 })],
  ['TTFT after the end', sampleOf({}, { ttftMs: 600 })],
  ['TPOT that is no number', sampleOf({}, { tpotMs: NaN })],
  ['TPOT of 31 years', sampleOf({}, { tpotMs: 1e12 })],
  ['more output tokens than any model writes', sampleOf({}, { outputTokens: 1e12 })],
  ['a prior of 31 years', sampleOf({ priorTtftMs: 1e12 })],
])('leaves out and counts %s, and takes the rest of the batch', (_name, bad) => {
  expect(parse([bad, sampleOf()])).toEqual({ taken: 1, invalid: 1 });
});

it('lets one absurd answer length count as ten usual ones', () => {
  const stats = new ModelStats();
  for (let i = 0; i < 100; i++) stats.note(sampleOf());
  stats.note(sampleOf({}, { outputTokens: 2 ** 24 }));
  expect(stats.figures().meanOutputTokens.fleet).toBeLessThan(25);
});
