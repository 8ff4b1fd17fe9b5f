import { expect, test } from 'vitest';
import { SeenTracker } from '../../../agent/door/seen.ts';
import { seededRng } from '../../../shared/env.ts';
import { hasSeen } from '../../../shared/instance.ts';

test('what was noted is seen and nothing else, in any order of arrival', () => {
  const rng = seededRng(11);
  const tracker = new SeenTracker();
  const noted = new Set<number>();
  for (let seq = 0; seq < 500; seq++) {
    // Arrivals jump ahead by up to 20, within the bitmap.
    const candidates = Array.from({ length: 20 }, (_, k) => seq + k).filter((one) => !noted.has(one));
    const pick = rng() < 0.5 ? Math.min(...candidates) : (candidates[Math.floor(rng() * candidates.length)] as number);
    const lowest = Math.min(...Array.from({ length: 600 }, (_, i) => i).filter((one) => !noted.has(one)));
    if (pick - lowest > 32) continue;
    noted.add(pick);
    tracker.note('e', 1, pick);
    const list = tracker.list();
    for (let check = Math.max(0, seq - 40); check < seq + 40; check++)
      expect(hasSeen(list, 'e', 1, check)).toBe(noted.has(check));
  }
});

test('a gap that never fills counts as seen once the bitmap is full', () => {
  const tracker = new SeenTracker();
  tracker.note('e', 1, 0);
  for (let seq = 2; seq < 40; seq++) tracker.note('e', 1, seq);
  expect(hasSeen(tracker.list(), 'e', 1, 1)).toBe(true);
  expect(hasSeen(tracker.list(), 'e', 1, 39)).toBe(true);
  expect(hasSeen(tracker.list(), 'e', 1, 40)).toBe(false);
});

test('a newer boot of an entry starts anew, an older one is ignored', () => {
  const tracker = new SeenTracker();
  tracker.note('e', 2, 5);
  tracker.note('e', 1, 9);
  expect(hasSeen(tracker.list(), 'e', 2, 5)).toBe(true);
  expect(hasSeen(tracker.list(), 'e', 2, 9)).toBe(false);
  expect(hasSeen(tracker.list(), 'e', 1, 3)).toBe(true);
});

test('remembers a bounded number of entries', () => {
  const tracker = new SeenTracker();
  for (let i = 0; i < 1000; i++) tracker.note(`e${i}`, 1, 0);
  expect(tracker.list().length).toBeLessThanOrEqual(256);
  expect(hasSeen(tracker.list(), 'e999', 1, 0)).toBe(true);
});

test('a sequence number far ahead is noted at once', () => {
  for (const [before, seq] of [
    [0, 2 ** 53 - 1],
    [40, 1e15],
    [40, 110],
    [40, 106],
    [40, 105],
    [40, 74],
  ] as const) {
    const tracker = new SeenTracker();
    for (let i = 0; i <= before; i += 2) tracker.note('e', 1, i);
    tracker.note('e', 1, seq);
    const list = tracker.list();
    expect(
      [seq, seq - 33, seq - 32, seq - 1].map((one) => hasSeen(list, 'e', 1, one)),
      `${before} to ${seq}`,
    ).toEqual([true, true, hasBit(seq - 32, before), hasBit(seq - 1, before)]);
  }
  function hasBit(seq: number, before: number): boolean {
    return seq <= before && seq % 2 === 0;
  }
});

test('numbers that count nothing are ignored, and ban nobody', () => {
  const tracker = new SeenTracker();
  for (const odd of [Number.NaN, -1, 0.5, Infinity]) {
    tracker.note('e', odd, 3);
    tracker.note('e', 7, odd);
  }
  expect(tracker.list()).toEqual([]);
  tracker.note('e', 7, 0);
  expect(hasSeen(tracker.list(), 'e', 7, 0)).toBe(true);
});
