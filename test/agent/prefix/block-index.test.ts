import { describe, expect, test } from 'vitest';
import { BlockIndex } from '../../../agent/prefix/block-index.ts';
import { type Rng, seededRng } from '../../../shared/env.ts';
import { below, pick } from '../../helpers/random.ts';

type Model = Map<string, Set<number>>;

/** Hashes of which many share their low bits, so that probing runs into one another and wraps around the table's end. */
function hashPool(rng: Rng, n: number): number[] {
  const pool = new Set<number>();
  while (pool.size < n) pool.add(below(rng, 2 ** 21) * 2 ** 32 + pick(rng, [below(rng, 8), 1020 + below(rng, 8), below(rng, 2 ** 32)]));
  pool.delete(0);
  return [...pool];
}

function expectSame(index: BlockIndex, model: Model, pool: readonly number[], rng: Rng): void {
  const held = new Set([...model.values()].flatMap((set) => [...set]));
  expect(index.blockCount).toBe(held.size);
  for (const [instance, set] of model) {
    expect(index.blocksOf(instance)).toBe(set.size);
    const alone = new Uint32Array(index.column(instance) + 1);
    for (const hash of pool) {
      index.match(Float64Array.of(hash), alone);
      expect(alone[index.column(instance)] === 1).toBe(set.has(hash));
    }
  }
  const names = [...model.keys()];
  const columns = names.map((name) => index.column(name));
  expect(new Set(columns).size).toBe(columns.length);
  const matched = new Uint32Array(Math.max(...columns) + 1);
  for (let round = 0; round < 5; round++) {
    const owner = model.get(pick(rng, names)) as Set<number>;
    const prompt = Float64Array.from([...owner].slice(0, below(rng, 12)).concat(pick(rng, pool)));
    index.match(prompt, matched);
    names.forEach((name, i) => {
      const set = model.get(name) as Set<number>;
      let depth = 0;
      while (depth < prompt.length && set.has(prompt[depth] as number)) depth += 1;
      expect(matched[columns[i] as number]).toBe(depth);
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
      if (what < 0.6) {
        expect(index.add(name, hash)).toBe(!set.has(hash));
        set.add(hash);
      } else if (what < 0.97) {
        const gone = set.size > 0 && rng() < 0.7 ? ([...set][below(rng, set.size)] as number) : hash;
        index.remove(name, gone);
        set.delete(gone);
      } else if (what < 0.985) {
        index.clear(name);
        set.clear();
      } else {
        index.clear(name, true);
        model.delete(name);
        make(`i${made++}`);
      }
      if (round % 500 === 499) expectSame(index, model, pool, rng);
    }
    expectSame(index, model, pool, rng);
  });

  test('a column that an instance has left holds nothing for the next one', () => {
    const index = new BlockIndex();
    index.add('a', 5);
    index.add('b', 5);
    const column = index.column('a');
    index.clear('a', true);
    expect(index.column('c')).toBe(column);
    expect(index.blocksOf('c')).toBe(0);
    const matched = new Uint32Array(2);
    index.match(Float64Array.of(5), matched);
    expect(matched[column]).toBe(0);
    expect(matched[index.column('b')]).toBe(1);
  });

  test('a hash that no fingerprint gives is not taken in: it would stand for an empty slot, or never be found again', () => {
    const index = new BlockIndex();
    for (const hash of [0, -0, Number.NaN, -1, Infinity, 0.5]) expect(index.add('a', hash)).toBe(false);
    for (let i = 1; i <= 5000; i++) expect(index.add('a', i)).toBe(true);
    expect(index.blockCount).toBe(5000);
    for (let i = 1; i <= 5000; i++) index.remove('a', i);
    for (const hash of [0, Number.NaN]) index.remove('a', hash);
    expect(index.blockCount).toBe(0);
  });
});
