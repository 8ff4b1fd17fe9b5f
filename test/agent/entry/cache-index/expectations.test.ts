import { beforeEach, expect, test } from 'vitest';
import { Expectations } from '../../../../agent/entry/cache-index/expectations.ts';
import { VirtualClock } from '../../../helpers/virtual-clock.ts';

const PROMPT = Float64Array.of(11, 12, 13, 14);
const nothing = (): boolean => false;
const everything = (): boolean => true;

let clock: VirtualClock;
let expected: Expectations;
beforeEach(() => {
  clock = new VirtualClock();
  expected = new Expectations(clock);
});

test('a request that was never computed leaves nothing', () => {
  const one = expected.expect(PROMPT, 0);
  expect(expected.match(PROMPT)).toBe(4);
  expected.end(one, false);
  expected.end(one, true);
  expect([expected.match(PROMPT), expected.size]).toEqual([0, 0]);
});

test('the door confirms by the last block that it can have, not by one before it', () => {
  expected.expect(PROMPT, 1);
  expected.confirm((hash) => hash < 13);
  expect(expected.match(PROMPT)).toBe(4);
  expected.confirm((hash) => hash <= 13);
  expect(expected.size).toBe(0);
});

test('the word of the door that comes before the end of the request, or after it, ends it once', () => {
  const before = expected.expect(PROMPT, 0);
  expected.confirm(everything);
  expected.end(before, true);
  expect(expected.size).toBe(0);
  const after = expected.expect(PROMPT, 0);
  expected.end(after, true);
  expected.confirm(everything);
  expected.confirm(everything);
  expect(expected.size).toBe(0);
});

test('a request that ended well counts until the door has had time to say so, and no longer', () => {
  const one = expected.expect(PROMPT, 0);
  expected.end(one, true);
  clock.advance(100);
  expected.confirm(nothing);
  expect(expected.match(PROMPT)).toBe(4);
  clock.advance(100);
  expected.confirm(nothing);
  expect(expected.size).toBe(0);
});

test('a request in flight counts, however often the door speaks of something else', () => {
  expected.expect(PROMPT, 0);
  clock.advance(10_000);
  expected.confirm(nothing);
  expected.forgetEnded();
  expect(expected.match(PROMPT)).toBe(4);
});

test('two siblings: what one was to bring, the other still is', () => {
  const one = expected.expect(PROMPT, 0);
  const other = expected.expect(Float64Array.of(11, 12, 23), 0);
  expected.end(one, false);
  expect(expected.match(PROMPT)).toBe(2);
  expect(expected.match(Float64Array.of(11, 12, 23))).toBe(3);
  expected.end(other, true);
  expect(expected.match(PROMPT)).toBe(2);
});

test('an engine that restarts has lost what ended requests left', () => {
  expected.end(expected.expect(PROMPT, 0), true);
  expected.expect(Float64Array.of(11), 0);
  expected.forgetEnded();
  expect(expected.match(PROMPT)).toBe(1);
});

test('without a word of the door, ended requests count for minutes, and about a cache full of them', () => {
  const promptOf = (n: number): Float64Array => Float64Array.from({ length: 4096 }, (_, i) => n * 10_000 + i);
  for (let n = 1; n <= 10; n++) expected.end(expected.expect(promptOf(n), 0), true);
  expect([2, 3, 10].map((n) => expected.match(promptOf(n)))).toEqual([0, 4096, 4096]);
  clock.advance(300_000);
  expected.end(expected.expect(PROMPT, 0), true);
  expect([3, 10].map((n) => expected.match(promptOf(n)))).toEqual([0, 0]);
  expect(expected.match(PROMPT)).toBe(4);
});

test('a prompt without a whole block is nothing to expect', () => {
  expected.end(expected.expect(new Float64Array(0), 0), true);
  expect(expected.size).toBe(0);
});
