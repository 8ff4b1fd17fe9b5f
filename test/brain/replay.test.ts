import { describe, expect, it } from 'vitest';
import type { Experience } from '../../brain/replay/experience.ts';
import { ReplayBuffer } from '../../brain/replay/index.ts';
import { seededRng } from '../../shared/env.ts';
import { FEATURE_COUNT } from '../../shared/features.ts';

function experience(value: number, arrivedMs: number, stratum = 'common'): Experience {
  return {
    row: new Float32Array(FEATURE_COUNT).fill(value),
    ttft: value,
    tpot: Number.NaN,
    arrivedMs,
    stratum,
    instance: 'i',
    lawSamples: 0,
  };
}

function values(buffer: ReplayBuffer, max: number): number[] {
  const { rows, n } = buffer.draw(max);
  return Array.from({ length: n }, (_, i) => rows[i * FEATURE_COUNT] as number);
}

describe('the replay buffer', () => {
  it('keeps the newest in order, and of the older ones what is rare', () => {
    const buffer = new ReplayBuffer({ recencySize: 10, diversitySize: 20, maxAgeMs: 1e6 }, seededRng(1));
    for (let i = 0; i < 5; i++) buffer.add(experience(1000 + i, i, `rare ${i % 2}`));
    for (let i = 0; i < 500; i++) buffer.add(experience(i, 10 + i));
    expect(buffer.sizes()).toEqual({ recency: 10, diversity: 20 });
    expect(buffer.newest(3).map(({ ttft }) => ttft)).toEqual([497, 498, 499]);
    expect(
      values(buffer, 1000)
        .filter((value) => value >= 1000)
        .toSorted((a, b) => a - b),
    ).toEqual([1000, 1001, 1002, 1003, 1004]);
  });

  it('gives a quarter of a round to what is spread over the state space, every stratum in turn', () => {
    const buffer = new ReplayBuffer({ recencySize: 100, diversitySize: 100, maxAgeMs: 1e6 }, seededRng(1));
    for (let i = 0; i < 4; i++) buffer.add(experience(1000 + i, 0, `rare ${i}`));
    for (let i = 0; i < 150; i++) buffer.add(experience(i, i));
    const drawn = values(buffer, 20);
    expect(drawn).toHaveLength(20);
    expect(drawn.slice(0, 5).filter((value) => value >= 1000)).toHaveLength(4);
    expect(drawn.slice(5)).toEqual(Array.from({ length: 15 }, (_, i) => 135 + i));
  });

  it('lets samples go by age from both pools', () => {
    const buffer = new ReplayBuffer({ recencySize: 5, diversitySize: 50, maxAgeMs: 1000 }, seededRng(1));
    for (let i = 0; i < 20; i++) buffer.add(experience(i, i * 100));
    buffer.prune(1900);
    expect(buffer.sizes()).toEqual({ recency: 5, diversity: 6 });
    buffer.prune(1e6);
    expect(buffer.sizes()).toEqual({ recency: 0, diversity: 0 });
    expect(buffer.draw(10).n).toBe(0);
  });
});
