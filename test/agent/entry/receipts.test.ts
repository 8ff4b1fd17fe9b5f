import { expect, test } from 'vitest';
import { type Receipt, Receipts } from '../../../agent/entry/receipts.ts';

function receipt(attempt: number): Receipt {
  return {
    atWallMs: 0,
    path: '/v1/completions',
    model: 'm',
    attempt,
    chosen: 'i',
    policy: 'learned',
    reason: 'trusted',
    propensity: 1,
    tableVersion: 1,
    promptTokens: 1,
    predictedTtftMs: 1,
    candidates: [],
    status: 'ok',
    ending: 'answered',
    culprit: 'nobody',
    ttftMs: 1,
    e2eMs: 2,
  };
}

test('keeps the newest, newest first, in any number', () => {
  const receipts = new Receipts(5);
  expect(receipts.newest(10)).toEqual([]);
  for (let i = 0; i < 3; i++) receipts.add(receipt(i));
  expect(receipts.newest(10).map((one) => one.attempt)).toEqual([2, 1, 0]);
  for (let i = 3; i < 12; i++) receipts.add(receipt(i));
  expect(receipts.newest(2).map((one) => one.attempt)).toEqual([11, 10]);
  expect(receipts.newest(100).map((one) => one.attempt)).toEqual([11, 10, 9, 8, 7]);
});
