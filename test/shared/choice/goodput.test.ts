import { expect, test } from 'vitest';
import { goodput, missProbability } from '../../../shared/choice/objectives/goodput.ts';
import { requestOf } from '../../helpers/reports.ts';

const prediction = (ttftMs: number, tpotMs: number) => ({
  ttftMs,
  ttftP90Ms: ttftMs * 1.5,
  tpotMs,
  tpotP90Ms: tpotMs * 1.2,
});

test('a limit at the predicted mean is missed half the time, at the p90 one time in ten', () => {
  expect(missProbability(100, 200, 100)).toBeCloseTo(0.5, 6);
  expect(missProbability(100, 200, 200)).toBeCloseTo(0.1, 1.9);
  expect(missProbability(100, 100, 1000)).toBeLessThan(1e-3);
  expect(missProbability(100, 100, 10)).toBeGreaterThan(0.999);
});

test('an instance that meets both targets costs less than a faster one that misses one of them', () => {
  const request = requestOf(1000, { sloTtftMs: 300, sloTpotMs: 30, outputTokens: 100 });
  const meetsBoth = goodput.costMs(prediction(200, 24), request);
  expect(meetsBoth).toBeLessThan(goodput.costMs(prediction(60, 40), request));
  expect(meetsBoth).toBeLessThan(goodput.costMs(prediction(500, 12), request));
});

test('the targets are those of the request: without any, latencies alone decide', () => {
  const tight = requestOf(1000, { sloTtftMs: 100 });
  const loose = requestOf(1000, { sloTtftMs: 10_000 });
  expect(goodput.costMs(prediction(400, 20), tight)).toBeGreaterThan(500 + goodput.costMs(prediction(400, 20), loose));
  const free = requestOf(1000);
  expect(goodput.costMs(prediction(100, 20), free)).toBeLessThan(goodput.costMs(prediction(101, 20), free));
});
