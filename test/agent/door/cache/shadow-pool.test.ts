import { beforeEach, describe, expect, test } from 'vitest';
import type { PrefixNode } from '../../../../agent/door/cache/records.ts';
import { nodeAt } from '../../../../agent/door/cache/sequence.ts';
import { CacheRig, idsPrompt, layoutOf, textPrompt } from '../../../helpers/cache-rig.ts';

let rig: CacheRig;

beforeEach(() => {
  rig = new CacheRig(17);
});

/** Ids from `from` on. */
const ids = (count: number, from = 0): number[] => Array.from({ length: count }, (_, at) => from + at);

describe('the door’s own account', () => {
  test('takes blocks for a prompt, and keeps what is cached once they are free', () => {
    const prompt = idsPrompt(ids(64));
    const sequence = rig.admit(prompt);
    expect([rig.pool.usedTokens, rig.depth(prompt)]).toEqual([64, 4]);
    expect(rig.pool.grow(sequence, 1)).toBe(true);
    expect(rig.pool.usedTokens).toBe(80);
    rig.finish(sequence, 2);
    expect([rig.pool.usedTokens, rig.depth(prompt)]).toEqual([0, 4]);
  });

  test('shares what is cached, but for the last token', () => {
    const prompt = idsPrompt(ids(64));
    rig.admit(prompt);
    rig.admit(idsPrompt([...ids(32), ...ids(32, 500)]));
    expect(rig.pool.usedTokens).toBe(96);
    // Cached to its end: its last block is computed again.
    expect(rig.pool.claimTokens(prompt, layoutOf(prompt), 64)).toBe(16);
    rig.admit(prompt);
    expect(rig.pool.usedTokens).toBe(112);
  });

  test('looks up again what was forgotten since a look found it', () => {
    const [a, b] = [idsPrompt(ids(64)), idsPrompt(ids(250, 500))];
    rig.finish(rig.admit(a));
    const layout = { ...layoutOf(a), nodes: rig.nodesOf(a) };
    expect(layout.nodes.length).toBe(4);
    expect(rig.pool.claimTokens(a, layout, 64)).toBe(64);
    rig.finish(rig.admit(b));
    expect(layout.nodes.some(({ known }) => known)).toBe(false);
    expect(rig.pool.claimTokens(a, layout, 64)).toBe(64);
    const sequence = rig.pool.admit(a, layout, 0);
    expect(sequence.nodes.map((node, k) => node === rig.nodesOf(a)[k] && node !== layout.nodes[k])).toEqual([
      true,
      true,
      true,
      true,
    ]);
    // The forgotten nodes stand for nothing, though others have their hashes: three blocks of the prompt are in use.
    expect(rig.pool.claimTokens(a, layout, 64)).toBe(16);
  });

  test('evicts ends before beginnings, the oldest first', () => {
    const [a, b, c] = [idsPrompt(ids(128)), idsPrompt(ids(128, 500)), idsPrompt(ids(48, 900))];
    rig.finish(rig.admit(a));
    rig.finish(rig.admit(b));
    rig.finish(rig.admit(c));
    expect([rig.depth(a), rig.depth(b), rig.depth(c)]).toEqual([5, 8, 3]);
    rig.drain();
    expect(rig.mirror.size).toBe(16);
  });

  test('refuses what it has no room for, and is right again afterwards', () => {
    const a = rig.admit(idsPrompt(ids(250)));
    expect(rig.pool.freeCount).toBe(0);
    expect(rig.pool.grow(a, 20)).toBe(false);
    rig.leave(a);
    rig.pool.preempt(a);
    expect([rig.pool.usedTokens, rig.pool.freeCount]).toEqual([0, 16]);
    // What was computed is found again.
    expect(rig.pool.claimTokens(a.prompt, layoutOf(a.prompt), 250)).toBe(256);
    expect(rig.depth(a.prompt)).toBe(15);
  });

  test('forgets what was never computed, unless another shares it', () => {
    const [alone, both] = [idsPrompt(ids(64)), idsPrompt(ids(64, 500))];
    const first = rig.admit(alone);
    const second = rig.admit(both);
    rig.admit(idsPrompt([...ids(64, 500), 1]));
    for (const one of [first, second]) {
      rig.leave(one);
      rig.pool.cancel(one);
    }
    expect([rig.depth(alone), rig.depth(both)]).toEqual([0, 4]);
    expect(rig.tree.get(alone.hashes[0]!)).toBeUndefined();
  });

  test('a reset leaves only what is in use', () => {
    const [a, b] = [idsPrompt(ids(64)), idsPrompt(ids(64, 500))];
    rig.finish(rig.admit(a));
    rig.admit(b);
    rig.pool.resetCached();
    expect([rig.depth(a), rig.depth(b), rig.tree.size]).toEqual([0, 4, 4]);
  });

  test('knows an answer as the text of the next turn’s prompt', () => {
    const prompt = textPrompt('a question. '.repeat(12));
    const answer = Buffer.from('an answer, '.repeat(24));
    rig.finish(rig.admit(prompt), answer.length / 4 + 1, answer);
    const next = textPrompt(Buffer.concat([prompt.text, answer, Buffer.from('and more')]));
    expect(rig.depth(next)).toBe(Math.floor((prompt.text.length + answer.length) / 64));
  });

  test('counts of the engine move the ends of byte blocks', () => {
    const prompt = textPrompt('words '.repeat(64));
    const sequence = rig.admit(prompt);
    rig.leave(sequence);
    rig.pool.finish(sequence, { promptTokens: 48, outputTokens: 1, answer: undefined });
    expect(rig.nodesOf(prompt).map(({ tokens, from, to }) => [tokens, from, to])).toEqual([
      [8, 0, 0],
      [16, 0, 1],
      [24, 1, 1],
      [32, 1, 2],
      [40, 2, 2],
      [48, 2, 3],
    ]);
  });

  test('a thin block is held while the one before it is', () => {
    const prompt = textPrompt('words '.repeat(64));
    const sequence = rig.admit(prompt);
    rig.leave(sequence);
    rig.pool.finish(sequence, { promptTokens: 48, outputTokens: 1, answer: undefined });
    expect(rig.depth(prompt)).toBe(6);
    rig.finish(rig.admit(idsPrompt(ids(14 * 16))));
    expect(rig.depth(prompt)).toBe(5);
    rig.drain();
    expect([...rig.mirror].toSorted()).toEqual(rig.held().toSorted());
  });
});

test('a block’s node is the one in which it ends', () => {
  const nodes = [
    [0, 1],
    [1, 1],
    [1, 3],
    [3, 3],
    [5, 6],
  ].map(([from, to]) => ({ from, to }) as PrefixNode);
  expect([0, 1, 2, 3, 4, 5, 6].map((index) => nodes.indexOf(nodeAt(nodes, index) as PrefixNode))).toEqual([
    0, 2, 2, -1, -1, 4, -1,
  ]);
  expect(nodeAt([], 0)).toBeUndefined();
});
