import { expect, test } from 'vitest';
import { median, quantile } from '../../shared/quantile.ts';

test('a quantile lies between the ranks', () => {
  expect(quantile([], 0.5)).toBeNaN();
  expect(quantile([3], 0.9)).toBe(3);
  expect(quantile([1, 2, 3, 4], 0)).toBe(1);
  expect(quantile([1, 2, 3, 4], 0.5)).toBe(2.5);
  expect(quantile([1, 2, 3, 4], 1)).toBe(4);
});

test('median', () => {
  expect(median([])).toBeNull();
  expect(median([3])).toBe(3);
  expect(median([9, 1, 5])).toBe(5);
  expect(median([4, 1, 3, 2])).toBe(2);
});
