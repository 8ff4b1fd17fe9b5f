import { expect, it } from 'vitest';
import { floorTtftMs, planTraffic } from '../../../cli/demo/traffic.ts';
import { findGpu, loadGpus } from '../../../sim/engine/gpus.ts';

const a100 = findGpu(loadGpus(), 'A100');

it('plans the same requests each time, at the asked rate', () => {
  const requests = planTraffic(8, 30);
  expect(requests).toHaveLength(240);
  expect(requests).toEqual(planTraffic(8, 30));
  expect((239 * 1000) / ((requests.at(-1)?.arrivalMs ?? 0) - (requests[0]?.arrivalMs ?? 0))).toBeCloseTo(8, 5);
});

it('refuses more requests than the trace has', () => {
  expect(() => planTraffic(100, 100)).toThrow('needs 10000 requests, and the trace has 1750');
});

it('bounds TTFT by chunks on an idle GPU with all that was seen cached', () => {
  const step = (tokens: number, context: number): number =>
    a100.c0 + a100.c1 * tokens + a100.c2 * tokens * (context + tokens / 2);
  const request = (inputTokens: number, hashIds: number[]) => ({
    arrivalMs: 0,
    inputTokens,
    outputTokens: 1,
    hashIds,
    blockTokens: 64,
  });
  expect(floorTtftMs([request(100, [1, 2])], a100, 8)).toBeCloseTo(8 + step(100, 0), 9);
  const long = request(
    3000,
    Array.from({ length: 47 }, (_, at) => at),
  );
  expect(floorTtftMs([long], a100, 8)).toBeCloseTo(8 + step(2048, 0) + step(952, 2048), 9);
  expect(floorTtftMs([request(100, [1, 2]), request(100, [1, 2])], a100, 8)).toBeCloseTo(
    8 + (step(100, 0) + step(1, 99)) / 2,
    9,
  );
  expect(floorTtftMs([request(128, [1, 2]), request(128, [1, 3])], a100, 8)).toBeCloseTo(
    8 + (step(128, 0) + step(64, 64)) / 2,
    9,
  );
});
