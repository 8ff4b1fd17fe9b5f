import { describe, expect, test } from 'vitest';
import { BlockIndex, type PrefixMatch } from '../../../../agent/entry/cache-index/block-index.ts';
import { type Rng, seededRng } from '../../../../shared/env.ts';
import { below, pick } from '../../../helpers/random.ts';

type Model = Map<string, Set<number>>;

/**
 * Hashes of which many share their low bits, so that probing runs into one another and wraps around the table's end.
 */
function hashPool(rng: Rng, n: number): number[] {
  const pool = new Set<number>();
  while (pool.size < n)
    pool.add(below(rng, 2 ** 21) * 2 ** 32 + pick(rng, [below(rng, 8), 1020 + below(rng, 8), below(rng, 2 ** 32)]));
  pool.delete(0);
  return [...pool];
}

function matchOf(index: BlockIndex, hashes: readonly number[], columns = 256): PrefixMatch {
  const into = { depth: new Uint32Array(columns), tokens: new Uint32Array(columns) };
  index.match(Float64Array.from(hashes), into);
  return into;
}

/** Tokens of a block, as a function of its hash; some are not known. */
const tokensOf = (hash: number): number => hash % 5 && (hash % 1000) + 1;

function expectSame(index: BlockIndex, model: Model, pool: readonly number[], rng: Rng): void {
  const wrong: string[] = [];
  for (const [instance, set] of model) {
    expect(index.blocksOf(instance)).toBe(set.size);
    for (const hash of pool) if (index.holds(instance, hash) !== set.has(hash)) wrong.push(`${instance} ${hash}`);
  }
  expect(wrong).toEqual([]);
  const names = [...model.keys()];
  const columns = names.map((name) => index.column(name));
  expect(new Set(columns).size).toBe(columns.length);
  for (let round = 0; round < 20; round++) {
    const owner = model.get(pick(rng, names)) as Set<number>;
    const prompt = [...owner].slice(0, below(rng, 100)).concat(pick(rng, pool));
    const matched = matchOf(index, prompt);
    names.forEach((name, i) => {
      const set = model.get(name) as Set<number>;
      const miss = prompt.findIndex((hash) => !set.has(hash));
      const depth = miss < 0 ? prompt.length : miss;
      const column = columns[i] as number;
      expect([matched.depth[column], matched.tokens[column]]).toEqual([
        depth,
        depth > 0 ? tokensOf(prompt[depth - 1] as number) : 0,
      ]);
    });
  }
}

describe('BlockIndex', () => {
  test.each([1, 2, 31, 32, 33, 64, 65, 100])('does what a map of sets does, with %i instances', (count) => {
    const rng = seededRng(count);
    const pool = hashPool(rng, 1500);
    const index = new BlockIndex();
    const model: Model = new Map();
    const make = (name: string): void => {
      model.set(name, new Set());
      index.column(name);
    };
    for (let i = 0; i < count; i++) make(`i${i}`);
    let made = count;
    for (let round = 0; round < 6000; round++) {
      const name = pick(rng, [...model.keys()]);
      const set = model.get(name) as Set<number>;
      const hash = pick(rng, pool);
      const what = rng();
      if (what < 0.5) {
        index.add(name, hash, tokensOf(hash));
        set.add(hash);
      } else if (what < 0.6) {
        const run = pool.slice(below(rng, pool.length)).slice(0, below(rng, 40));
        index.addAll(name, run, run.map(tokensOf));
        for (const one of run) set.add(one);
      } else if (what < 0.97) {
        const gone = [...set].slice(rng() < 0.7 ? -1 - below(rng, 30) : below(rng, 1500)).concat(hash);
        index.removeAll(name, gone);
        for (const one of gone) set.delete(one);
      } else if (what < 0.985) {
        index.clear(name);
        set.clear();
      } else {
        index.clear(name, true);
        model.delete(name);
        make(`i${made++}`);
      }
      if (round % 1000 === 999) expectSame(index, model, pool, rng);
    }
    for (const [name, set] of model) index.removeAll(name, [...set]);
    expect(index.blockCount).toBe(0);
  });

  test('a hole ends a prefix, whatever comes after it', () => {
    const index = new BlockIndex();
    const chain = Array.from({ length: 300 }, (_, i) => i * 7 + 1);
    index.addAll('a', chain, []);
    index.addAll('b', chain, []);
    index.remove('a', chain[0] as number);
    index.remove('b', chain[200] as number);
    const { depth } = matchOf(index, chain);
    expect([depth[index.column('a')], depth[index.column('b')]]).toEqual([0, 200]);
    index.add('b', chain[200] as number);
    expect(matchOf(index, chain).depth[index.column('b')]).toBe(300);
  });

  test('tokens belong to the block: the last that are known hold for all instances, and what is not known overwrites nothing', () => {
    const index = new BlockIndex();
    index.addAll('a', [1, 2, 3], [17, 33]);
    index.addAll('b', [1, 2], [0, 34]);
    index.add('b', 1);
    const { depth, tokens } = matchOf(index, [1, 2, 3]);
    const [a, b] = [index.column('a'), index.column('b')];
    expect([depth[a], tokens[a], depth[b], tokens[b]]).toEqual([3, 0, 2, 34]);
    expect([1, 2, 3, 4].map((hash) => index.tokensAt(hash))).toEqual([17, 34, 0, 0]);
    index.remove('a', 1);
    expect(index.tokensAt(1)).toBe(17);
    index.remove('b', 1);
    expect(index.tokensAt(1)).toBe(0);
  });

  test('a column that an instance has left holds nothing for the next one', () => {
    const index = new BlockIndex();
    index.add('a', 5);
    index.add('b', 5);
    const column = index.column('a');
    index.clear('a', true);
    expect(index.column('c')).toBe(column);
    expect(index.blocksOf('c')).toBe(0);
    const { depth } = matchOf(index, [5]);
    expect([depth[column], depth[index.column('b')]]).toEqual([0, 1]);
  });

  test('large views are swept out a little at a time; nothing of them is seen meanwhile, and their room comes back', () => {
    const index = new BlockIndex();
    const blocks = Array.from({ length: 150_000 }, (_, i) => (i + 1) * 4_000_000_007);
    const first = blocks[0] as number;
    index.addAll('a', blocks.slice(0, 100_000), []);
    index.addAll('b', blocks.slice(50_000), []);
    for (let round = 0; round < 40; round++) {
      index.clear('a');
      expect(matchOf(index, [first]).depth[index.column('a')]).toBe(0);
      index.add('a', first);
      expect(index.blocksOf('a')).toBe(1);
    }
    const before = index.bytes;
    for (let i = 0; i < 40_000; i++) index.add('a', first);
    expect(index.blockCount).toBe(100_001);
    index.clear('b', true);
    for (let i = 0; i < 40_000; i++) index.add('a', first);
    expect(index.blockCount).toBe(1);
    expect(index.bytes).toBeLessThan(before / 2);
  });

  test('beyond its bound it takes no block in and counts what it refuses', () => {
    const index = new BlockIndex(3);
    index.addAll('a', [1, 2, 3, 4], []);
    index.addAll('b', [1, 4], []);
    expect([index.blockCount, index.refused, index.blocksOf('a'), index.blocksOf('b')]).toEqual([3, 2, 3, 1]);
    index.remove('a', 3);
    index.add('b', 4);
    expect(index.holds('b', 4)).toBe(true);
  });

  test('a hash that no fingerprint gives is not taken in: it would stand for an empty row, or never be found again', () => {
    const index = new BlockIndex();
    for (const hash of [0, -0, Number.NaN, -1, Infinity, 0.5, 2 ** 53]) {
      index.add('a', hash);
      index.remove('a', hash);
      expect(index.holds('a', hash)).toBe(false);
    }
    expect(index.blockCount).toBe(0);
    for (let i = 1; i <= 5000; i++) index.add('a', i);
    expect(index.blockCount).toBe(5000);
    for (let i = 1; i <= 5000; i++) index.remove('a', i);
    expect(index.blockCount).toBe(0);
    expect(matchOf(index, [1, Number.NaN]).depth[0]).toBe(0);
  });
});
