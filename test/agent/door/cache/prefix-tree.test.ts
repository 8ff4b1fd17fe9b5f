import { beforeEach, expect, test } from 'vitest';
import { PrefixTree } from '../../../../agent/door/cache/prefix-tree.ts';
import type { PrefixNode } from '../../../../agent/door/cache/records.ts';

let tree: PrefixTree;

beforeEach(() => {
  tree = new PrefixTree();
  tree.drainDelta();
});

/** A node of `blocks` engine blocks behind `parent`; held in the door's account if `held`. */
function grow(hash: number, parent?: PrefixNode, blocks = 1, held = true): PrefixNode {
  const node = tree.ensure(hash, parent, `text ${hash}`);
  const from = parent?.to ?? 0;
  tree.place(node, (from + blocks) * 16, true, from, from + blocks);
  node.shadow.blocks = Array.from({ length: held ? blocks : 0 }, (_, at) => hash * 10 + at);
  node.shadow.held = held && blocks > 0;
  tree.settle(node);
  return node;
}

function lose(node: PrefixNode): void {
  node.shadow.blocks = [];
  node.shadow.held = false;
  tree.settle(node);
  tree.prune(node);
}

test('tells what has changed, once, with the tokens that a prompt finds there', () => {
  const one = grow(1);
  grow(2, one);
  expect(tree.drainDelta()).toEqual({ reset: false, add: [1, 2], tokens: [16, 32], remove: [] });
  expect(tree.hasDelta).toBe(false);
  lose(tree.get(2)!);
  const three = grow(3, one);
  expect(tree.drainDelta()).toEqual({ reset: false, add: [3], tokens: [32], remove: [2] });
  // A small correction is not worth a word.
  tree.setTail(three, 7);
  expect(tree.hasDelta).toBe(false);
  tree.setTail(three, 20);
  expect(tree.drainDelta()).toEqual({ reset: false, add: [3], tokens: [52], remove: [] });
  tree.requestReset();
  expect(tree.drainDelta()).toEqual({ reset: true, add: [1, 3], tokens: [16, 52], remove: [] });
});

test('forgets what nobody holds, with the way that led to it alone', () => {
  const one = grow(1);
  const two = grow(2, one);
  const three = grow(3, two);
  lose(one);
  lose(two);
  expect([tree.size, tree.blockCount]).toEqual([3, 1]);
  lose(three);
  expect([tree.size, tree.blockCount]).toEqual([0, 0]);
});

test('a thin run goes with its leader, and is told of with it', () => {
  const one = grow(1);
  const two = grow(2, one, 0);
  const three = grow(3, two, 0);
  expect(tree.drainDelta().add).toEqual([1, 2, 3]);
  expect(tree.isHeld(three)).toBe(true);
  lose(one);
  expect([tree.size, tree.drainDelta().remove.toSorted()]).toEqual([0, [1, 2, 3]]);
});

test('a thin run behind which something was held goes when that goes', () => {
  const one = grow(1);
  const four = grow(4, grow(3, grow(2, one, 0), 0));
  lose(one);
  expect(tree.size).toBe(4);
  lose(four);
  expect(tree.size).toBe(0);
});

test('a node that was forgotten is not told of, though another of its hash is there', () => {
  const old = grow(1);
  lose(old);
  grow(1);
  tree.drainDelta();
  tree.settle(old);
  lose(old);
  expect([tree.hasDelta, tree.blockCount, tree.isHeld(tree.get(1)!)]).toEqual([false, 1, true]);
});

test('a node that was found before is right until it is forgotten, by itself or with all others', () => {
  const [one, two] = [grow(1), grow(2)];
  expect([tree.nodeOf(1, one), tree.nodeOf(1, undefined)]).toEqual([one, one]);
  lose(one);
  expect(tree.nodeOf(1, one)).toBeUndefined();
  const again = grow(1);
  expect(tree.nodeOf(1, one)).toBe(again);
  tree.clear();
  expect([tree.nodeOf(1, again), tree.nodeOf(2, two)]).toEqual([undefined, undefined]);
});

test('another account in force is another whole view', () => {
  const [one, two] = [grow(1), grow(2, undefined, 1, false)];
  one.engine.state = 'gone';
  two.engine.state = 'held';
  tree.setSource(true);
  expect(tree.drainDelta()).toEqual({ reset: true, add: [2], tokens: [16], remove: [] });
  tree.setSource(false);
  expect(tree.drainDelta()).toEqual({ reset: true, add: [1], tokens: [16], remove: [] });
});

test('the continuation that shares most of a text is found among the newest', () => {
  const one = grow(1);
  tree.ensure(2, one, 'abcdef');
  tree.ensure(3, one, 'abcxyz');
  expect(tree.sharing(one, 'abcdxx')).toMatchObject({ node: { hash: 2 }, bytes: 4 });
  expect(tree.sharing(one, 'zzz')).toBeUndefined();
  for (let hash = 10; hash < 26; hash++) tree.ensure(hash, one, `${hash}`);
  expect(tree.sharing(one, 'abcdxx')).toBeUndefined();
  const tail = tree.ensureTail(one, 'abcd');
  expect([tail.hash < 0, tree.sharing(one, 'abcdxx')?.node]).toEqual([true, tail]);
});
