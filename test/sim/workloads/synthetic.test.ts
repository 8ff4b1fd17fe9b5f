import { describe, expect, it } from 'vitest';
import { readTrace, simPrompt } from '../../../sim/workloads/index.ts';
import { endlessHitRatio } from './hit-ratio.ts';

const plain = { seed: 1, lengthScale: 1, outputScale: 1 };
const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

describe.each(['synthetic:shared-prompts', 'synthetic:agents'])('%s', (name) => {
  const { requests } = readTrace(name, plain);

  it('repeats with its seed', () => {
    expect(readTrace(name, plain).requests).toEqual(requests);
    expect(readTrace(name, { ...plain, seed: 2 }).requests.slice(0, 5)).not.toEqual(requests.slice(0, 5));
  });

  it('has Poisson arrivals of about ten a second, in order', () => {
    expect(requests.length / 600).toBeGreaterThan(8.5);
    expect(requests.length / 600).toBeLessThan(11.5);
    const gaps = requests.slice(1).map((one, at) => one.arrivalMs - (requests[at]?.arrivalMs ?? 0));
    expect(Math.min(...gaps)).toBeGreaterThanOrEqual(0);
    expect(Math.sqrt(mean(gaps.map((gap) => (gap / mean(gaps) - 1) ** 2)))).toBeCloseTo(1, 0);
    expect(mean(requests.map((one) => one.outputTokens))).toBeGreaterThan(135);
    expect(mean(requests.map((one) => one.outputTokens))).toBeLessThan(165);
  });

  it('lasts as long as asked and scales', () => {
    const short = readTrace(name, { ...plain, startMs: 10_000, durationMs: 20_000, lengthScale: 0.5 }).requests;
    expect(short.length).toBeGreaterThan(100);
    expect(short.at(-1)?.arrivalMs).toBeLessThan(20_000);
    for (const one of short) expect(one.hashIds.length).toBe(Math.ceil(one.inputTokens / one.blockTokens));
  });
});

it('shares system prompts, the popular ones most', () => {
  const { requests } = readTrace('synthetic:shared-prompts', plain);
  expect(endlessHitRatio(requests)).toBeGreaterThan(0.8);
  const count = (client: string): number => requests.filter((one) => one.client === client).length;
  expect(new Set(requests.map((one) => one.client)).size).toBe(40);
  expect(count('app0')).toBeGreaterThan(1.5 * count('app1'));
  for (const { inputTokens } of requests) expect(inputTokens >= 2100 && inputTokens <= 4816).toBe(true);
});

it('extends the prompts of agents turn by turn', () => {
  const { requests } = readTrace('synthetic:agents', plain);
  expect(endlessHitRatio(requests)).toBeGreaterThan(0.7);
  const [first] = requests.filter((one) => one.inputTokens < 1500);
  const own = first!.hashIds[first!.hashIds.length - 2]!;
  const session = requests.filter((one) => one.hashIds.includes(own));
  expect(session.length).toBeGreaterThan(2);
  for (const [at, turn] of session.slice(1).entries()) {
    const before = session[at]!;
    expect(turn.inputTokens).toBeGreaterThan(before.inputTokens + before.outputTokens);
    const shared = Math.floor(before.inputTokens / 16) * 16;
    expect(simPrompt(turn, 1).subarray(0, shared)).toEqual(simPrompt(before, 1).subarray(0, shared));
  }
});

it('names the kinds there are, and is not made up without end', () => {
  expect(() => readTrace('synthetic:chaos', plain)).toThrow(
    'made-up ones are synthetic:shared-prompts, synthetic:agents',
  );
  expect(() => readTrace('synthetic:agents', { ...plain, durationMs: 1e9 })).toThrow('at most 3600 s');
});
