import { expect, test } from 'vitest';
import { TailEstimate } from '../../../agent/prefix/tail-estimate.ts';
import { seededRng } from '../../../shared/env.ts';

const BLOCK = 18;

/** Reports of an engine with blocks of 16 tokens, for prompts that part `part` (0..1) of a block beyond what matched. */
function teach(tails: TailEstimate, part: () => number, model = 'm'): void {
  const rng = seededRng(2);
  for (let i = 0; i < 3000; i++) {
    const matched = Math.round(BLOCK * (1 + 100 * rng()));
    tails.learn(model, Math.floor((matched + part() * BLOCK) / 16) * 16, matched, BLOCK);
  }
}

test('half a block is expected before anything is known', () => {
  expect(new TailEstimate().expect('m', 20)).toBe(10);
});

test.each([
  ['at the start of a block', () => 0, 0, 0.15],
  ['at the end of one', () => 1, 0.85, 1],
  ['anywhere', seededRng(9), 0.4, 0.6],
])('prompts that part %s', (_where, part, low, high) => {
  const tails = new TailEstimate();
  teach(tails, part);
  expect(tails.expect('m', BLOCK) / BLOCK).toBeGreaterThanOrEqual(low);
  expect(tails.expect('m', BLOCK) / BLOCK).toBeLessThanOrEqual(high);
  expect(tails.expect('other', BLOCK)).toBe(BLOCK / 2);
});

test('a view that was wrong says nothing of where prompts part', () => {
  const tails = new TailEstimate();
  for (let i = 0; i < 100; i++) {
    tails.learn('m', 0, 500, BLOCK);
    tails.learn('m', 400, 500, BLOCK);
    tails.learn('m', 640, 500, BLOCK);
    tails.learn('m', 16, 0, BLOCK);
  }
  expect(tails.expect('m', BLOCK)).toBe(BLOCK / 2);
});

test('the number of models is bounded', () => {
  const tails = new TailEstimate();
  for (let i = 0; i < 300; i++) tails.learn(`m${i}`, 512, 500, BLOCK);
  expect(tails.expect('m255', BLOCK)).not.toBe(BLOCK / 2);
  expect(tails.expect('m256', BLOCK)).toBe(BLOCK / 2);
});
