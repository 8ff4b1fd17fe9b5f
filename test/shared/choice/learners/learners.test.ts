import { describe, expect, test } from 'vitest';
import { kCentre } from '../../../../shared/choice/learners/k-centre.ts';
import { LatencyByLoad } from '../../../../shared/choice/learners/latency-by-load.ts';
import { SLICE_ROWS, trainMlp } from '../../../../shared/choice/learners/mlp.ts';
import { RewardModel } from '../../../../shared/choice/learners/reward-model.ts';
import { runSliced } from '../../../../shared/choice/learners/sliced.ts';
import { StratifiedStore } from '../../../../shared/choice/learners/stratified-store.ts';
import { trainTrees } from '../../../../shared/choice/learners/trees.ts';
import { seededRng } from '../../../../shared/env.ts';
import { VirtualClock } from '../../../helpers/virtual-clock.ts';

/** Runs a job to its end; returns its slices and its result. */
function finish<T>(job: Generator<number, T>): { slices: number[]; result: T } {
  const slices: number[] = [];
  for (;;) {
    const step = job.next();
    if (step.done) return { slices, result: step.value };
    slices.push(step.value);
  }
}

/** Rows in [−1, 1] and a target with a bend and a product. */
function problem(n: number, dimension: number) {
  const rng = seededRng(11);
  const rows = Float32Array.from({ length: n * dimension }, () => 2 * rng() - 1);
  const targets = Float32Array.from({ length: n }, (_, i) => {
    const at = i * dimension;
    return 1 + 2 * rows[at]! + 3 * Math.max(0, rows[at + 1]!) * rows[at + 2]!;
  });
  return { rows, targets };
}

/** Share of the targets' variance that predictions explain. */
function explained(targets: Float32Array, predict: (i: number) => number): number {
  const mean = targets.reduce((sum, target) => sum + target, 0) / targets.length;
  let left = 0;
  let all = 0;
  targets.forEach((target, i) => {
    left += (target - predict(i)) ** 2;
    all += (target - mean) ** 2;
  });
  return 1 - left / all;
}

test('a sliced job does one slice per timer and hands over its result', () => {
  const clock = new VirtualClock();
  let done = 0;
  let result = '';
  function* job(): Generator<number, string> {
    for (; done < 5; done++) yield 1;
    return 'result';
  }
  runSliced(clock, job(), (value) => (result = value));
  expect(done).toBe(0);
  clock.advance(3);
  expect(done).toBe(2);
  clock.advance(3);
  expect(result).toBe('result');
});

describe('network', () => {
  const { rows, targets } = problem(600, 6);
  const train = (seed: number) =>
    finish(trainMlp({ rows, targets, dimension: 6 }, [6, 32, 32, 32, 1], 60, seededRng(seed)));

  test('fits what it was given, in slices of few rows, and the same for the same seed', { timeout: 60_000 }, () => {
    const { slices, result } = train(1);
    expect(Math.max(...slices)).toBeLessThanOrEqual(SLICE_ROWS);
    expect(explained(targets, (i) => result.forward(rows, i * 6))).toBeGreaterThan(0.8);
    expect(train(1).result.parameters).toEqual(result.parameters);
  });
});

describe('trees', () => {
  const { rows, targets } = problem(2000, 6);
  const train = (seed: number) => finish(trainTrees({ rows, targets, stride: 6, features: 6 }, seededRng(seed)));

  test('fit what they did not see, a tree per slice, and the same for the same seed', () => {
    const half = { rows: rows.subarray(0, 6 * 1500), targets: targets.subarray(0, 1500), stride: 6, features: 6 };
    const { slices, result } = finish(trainTrees(half, seededRng(1)));
    expect(slices).toHaveLength(6 + 60);
    const rest = targets.subarray(1500);
    expect(explained(rest, (i) => result.predict(rows.subarray(6 * (1500 + i))))).toBeGreaterThan(0.9);
    expect(train(2).result).toEqual(train(2).result);
  });

  test('a constant target, and no rows at all, give constants', () => {
    const flat = finish(
      trainTrees({ rows, targets: new Float32Array(2000).fill(7), stride: 6, features: 6 }, seededRng(1)),
    ).result;
    expect(flat.predict(rows)).toBeCloseTo(7, 3);
    const none = finish(
      trainTrees({ rows: new Float32Array(0), targets: new Float32Array(0), stride: 6, features: 6 }, seededRng(1)),
    ).result;
    expect(none.predict(rows)).toBe(0);
  });
});

test('k-centre takes one of each direction before a second of any', () => {
  const directions = [
    [1, 0],
    [0, 1],
    [-1, 0],
    [0, -1],
  ];
  const rows = new Float32Array(80);
  for (let i = 0; i < 40; i++)
    rows.set(
      directions[i % 4]!.map((x) => x * (1 + i)),
      2 * i,
    );
  const { result } = finish(kCentre(rows, 2, 4, seededRng(1)));
  expect(new Set(result.map((i) => i % 4)).size).toBe(4);
});

test(
  'a round of the reward model trains only as time passes, and the model in force changes at its end',
  { timeout: 60_000 },
  () => {
    const clock = new VirtualClock();
    const model = new RewardModel(clock, seededRng(1), 2);
    const rng = seededRng(2);
    const add = (): void => model.add(Float32Array.of(rng(), rng()), -1);
    for (let i = 0; i < 299; i++) add();
    clock.advance(30_000);
    add();
    const inside = Float32Array.of(0.5, 0.5);
    expect(model.ready).toBe(false);
    // 300 rows in 20 epochs, at most 32 at a time: some 200 slices.
    clock.advance(100);
    expect(model.rounds).toBe(0);
    clock.advance(1000);
    expect(model.rounds).toBe(1);
    expect(model.ready).toBe(true);
    expect(model.predict(inside)).toBeLessThan(-0.4);
  },
);

test('a stratified store keeps rare states beside common ones', () => {
  const store = new StratifiedStore();
  const sample = (ttftMs: number) => ({ row: new Float32Array(1), ttftMs, tpotMs: null });
  for (let i = 0; i < 3; i++) store.add(sample(-1), 20, 0.9, 0);
  for (let i = 0; i < 700; i++) store.add(sample(i), 0, 0.1, 0.5);
  expect(store.size).toBe(503);
  const taken = store.take(50);
  expect(taken).toHaveLength(50);
  expect(taken.filter(({ ttftMs }) => ttftMs === -1)).toHaveLength(3);
  // The newest of the common ones.
  expect(Math.max(...taken.map(({ ttftMs }) => ttftMs))).toBe(699);
  expect(Math.min(...taken.map(({ ttftMs }) => ttftMs).filter((ms) => ms >= 0))).toBe(653);
  expect(store.take(10_000)).toHaveLength(503);
});

test('latency by load answers for the nearest load of which it has fresh news', () => {
  const latencies = new LatencyByLoad();
  expect(latencies.estimateMs(3, 0)).toBeUndefined();
  for (const ms of [10, 30, 20]) latencies.add(2, ms, 0);
  latencies.add(10, 500, 20_000);
  expect(latencies.estimateMs(4, 20_000)).toBe(20);
  expect(latencies.estimateMs(9, 20_000)).toBe(500);
  expect(latencies.estimateMs(2, 40_000)).toBe(500);
});
