import { beforeEach, expect, test } from 'vitest';
import type { PrefixNode } from '../../../../agent/door/cache/records.ts';
import { ViewDelta } from '../../../../agent/door/cache/view-delta.ts';

let delta: ViewDelta;
let nodes: Map<number, PrefixNode>;

beforeEach(() => {
  delta = new ViewDelta();
  nodes = new Map();
  for (const hash of [1, 2, 3]) nodes.set(hash, { hash, published: true } as PrefixNode);
});

const drain = () => delta.drain(nodes, ({ hash }) => hash * 16);

test('the first delta is the whole view, without what is not published', () => {
  (nodes.get(2) as PrefixNode).published = false;
  delta.remove(2);
  expect(delta.isEmpty).toBe(false);
  expect(drain()).toEqual({ reset: true, add: [1, 3], tokens: [16, 48], remove: [] });
  expect(delta.isEmpty).toBe(true);
});

test('of what happened to a block, the last change counts', () => {
  drain();
  for (const hash of [1, 2]) delta.add(hash);
  delta.remove(1);
  delta.remove(3);
  delta.add(3);
  expect(drain()).toEqual({ reset: false, add: [2, 3], tokens: [32, 48], remove: [1] });
  expect(drain()).toEqual({ reset: false, add: [], tokens: [], remove: [] });
});

test('a count is published anew once it has changed by half an engine block', () => {
  drain();
  delta.recount(1, 16, 23);
  expect(delta.isEmpty).toBe(true);
  delta.recount(1, 16, 24);
  delta.recount(2, 32, 24);
  expect(drain().add).toEqual([1, 2]);
});

test('a better count does not bring back a block that has gone', () => {
  drain();
  delta.remove(4);
  delta.recount(4, 0, 100);
  expect(drain()).toEqual({ reset: false, add: [], tokens: [], remove: [4] });
});

test('tokens are whole and not negative', () => {
  expect(delta.drain(nodes, ({ hash }) => 1.6 * hash - 3).tokens).toEqual([0, 0, 2]);
});

test('a reset, or more changes than are remembered, make the next delta the whole view', () => {
  drain();
  delta.reset();
  expect(drain()).toMatchObject({ reset: true, add: [1, 2, 3] });
  for (let hash = 0; hash < 262_145; hash++) delta.remove(hash + 10);
  expect(drain()).toMatchObject({ reset: true, add: [1, 2, 3], remove: [] });
});
