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
