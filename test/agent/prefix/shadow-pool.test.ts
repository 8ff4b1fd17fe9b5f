import { describe, expect, test } from 'vitest';
import { type PoolLease, ShadowPool } from '../../../agent/prefix/shadow-pool.ts';
import { seededRng } from '../../../shared/env.ts';
import { below } from '../../helpers/random.ts';

const hashes = (...list: number[]): Float64Array => Float64Array.from(list);

/** The view that a receiver of the pool's deltas has. */
class Replica {
  readonly held = new Set<number>();

  apply({ reset, add, remove }: ReturnType<ShadowPool['drainDelta']>): void {
    if (reset) this.held.clear();
    for (const hash of remove) {
      expect(this.held.has(hash)).toBe(true);
      this.held.delete(hash);
    }
    for (const hash of add) {
      expect(this.held.has(hash)).toBe(false);
      this.held.add(hash);
    }
  }
}

function cached(pool: ShadowPool): Set<number> {
  pool.requestReset();
  return new Set(pool.drainDelta().add);
}

describe('ShadowPool', () => {
  test('blocks that requests share count once, and stay cached after them', () => {
    const pool = new ShadowPool(1000);
    const a = pool.acquire(hashes(1, 2), 32, 70);
    const b = pool.acquire(hashes(1, 2, 3), 32, 96);
    expect(pool.usedTokens).toBe(64 + 6 + 32);
    pool.release(a);
    expect(pool.usedTokens).toBe(96);
    pool.release(b);
    expect(pool.usedTokens).toBe(0);
    expect(pool.match(hashes(1, 2, 3, 4))).toBe(3);
    expect(pool.match(hashes(2))).toBe(1);
    expect(pool.match(hashes(9, 1))).toBe(0);
  });

  test('the oldest release is evicted first, and of one request the last block first', () => {
    const pool = new ShadowPool(128);
    pool.release(pool.acquire(hashes(1, 2), 32, 64));
    pool.release(pool.acquire(hashes(5, 6), 32, 64));
    const c = pool.acquire(hashes(7), 32, 32);
    expect(cached(pool)).toEqual(new Set([1, 5, 6, 7]));
    pool.acquire(hashes(8), 32, 32);
    expect(cached(pool)).toEqual(new Set([5, 6, 7, 8]));
    pool.release(c);
    pool.acquire(hashes(9), 32, 32);
    expect(cached(pool)).toEqual(new Set([5, 7, 8, 9]));
  });

  test('a hit makes a block young again, and a referenced one is never evicted', () => {
    const pool = new ShadowPool(96);
    pool.release(pool.acquire(hashes(1), 32, 32));
    pool.release(pool.acquire(hashes(2), 32, 32));
    const again = pool.acquire(hashes(1), 32, 32);
    pool.acquire(hashes(3), 32, 32);
    pool.acquire(hashes(4), 32, 32);
    expect(cached(pool)).toEqual(new Set([1, 3, 4]));
    pool.release(again);
    pool.acquire(hashes(5), 32, 32);
    expect(cached(pool)).toEqual(new Set([3, 4, 5]));
  });

  test('what was never computed does not stay, but for what was cached before or is held by another', () => {
    const pool = new ShadowPool(1000);
    pool.release(pool.acquire(hashes(1), 32, 32));
    const refused = pool.acquire(hashes(1, 2, 3), 32, 96);
    const other = pool.acquire(hashes(1, 2), 32, 64);
    pool.release(refused, false);
    expect(cached(pool)).toEqual(new Set([1, 2]));
    pool.release(other);
    expect(cached(pool)).toEqual(new Set([1, 2]));
    expect(pool.usedTokens).toBe(0);
  });

  test('generated tokens take room, and are evicted like blocks', () => {
    const pool = new ShadowPool(100);
    const lease = pool.acquire(hashes(1), 32, 40);
    pool.grow(lease, 20);
    expect(pool.usedTokens).toBe(60);
    pool.release(lease);
    pool.acquire(hashes(2), 32, 68);
    expect(cached(pool)).toEqual(new Set([1, 2]));
    expect(pool.usedTokens).toBe(68);
  });

  test('what was overbooked while all was referenced is evicted as soon as it is released', () => {
    const pool = new ShadowPool(64);
    const lease = pool.acquire(hashes(1, 2, 3), 32, 96);
    expect(cached(pool).size).toBe(3);
    pool.release(lease);
    expect(cached(pool)).toEqual(new Set([1, 2]));
  });

  test('the engine\'s own hit counts teach how much it really keeps, within bounds', () => {
    const pool = new ShadowPool(1000);
    for (let i = 1; i <= 31; i++) pool.release(pool.acquire(hashes(i), 32, 32));
    expect(pool.blockCount).toBe(31);
    for (let i = 0; i < 50; i++) pool.correct(500, 0, 32);
    expect(pool.blockCount).toBe(15);
    for (let i = 0; i < 50; i++) pool.correct(0, 500, 32);
    for (let i = 1; i <= 31; i++) pool.release(pool.acquire(hashes(i), 32, 32));
    expect(pool.blockCount).toBe(31);
    pool.correct(500, 490, 32);
    expect(pool.blockCount).toBe(31);
  });

  test('a reset of the engine\'s cache keeps what live requests hold; a restart keeps nothing', () => {
    const pool = new ShadowPool(1000);
    pool.release(pool.acquire(hashes(1), 32, 32));
    pool.acquire(hashes(2), 32, 32);
    pool.resetCached();
    expect(cached(pool)).toEqual(new Set([2]));
    pool.clear();
    expect(pool.drainDelta()).toEqual({ reset: true, add: [], tokens: [], remove: [] });
    expect(pool.usedTokens).toBe(0);
  });

  test('against a naive model: used tokens, capacity, cached set and deltas, over random traffic', () => {
    const rng = seededRng(42);
    const pool = new ShadowPool(3200);
    const replica = new Replica();
    const seen = new Set<number>();
    // Prompts are paths in a small tree, so that they share beginnings as conversations do.
    const path = (): number[] => {
      const out: number[] = [];
      const length = 1 + below(rng, 8);
      for (let node = 1 + below(rng, 4); out.length < length; node = node * 3 + below(rng, 3)) out.push(node);
      for (const node of out) seen.add(node);
      return out;
    };
    // Found by asking: unlike a drained delta, this leaves the pool as it is.
    const cachedNow = (): Set<number> => new Set([...seen].filter((node) => pool.match(Float64Array.of(node)) === 1));
    const live: { lease: PoolLease; path: number[]; loose: number }[] = [];
    for (let round = 0; round < 1500; round++) {
      const what = rng();
      if (what < 0.35 && live.length < 8) {
        const nodes = path();
        const tail = below(rng, 30);
        const hit = pool.match(Float64Array.from(nodes));
        const known = cachedNow();
        let expected = 0;
        while (expected < nodes.length && known.has(nodes[expected] as number)) expected += 1;
        expect(hit).toBe(expected);
        live.push({ lease: pool.acquire(Float64Array.from(nodes), 32, nodes.length * 32 + tail), path: nodes, loose: tail });
      } else if (what < 0.6 && live.length > 0) {
        const one = live[below(rng, live.length)] as (typeof live)[number];
        pool.grow(one.lease, 3);
        one.loose += 3;
      } else if (live.length > 0) {
        pool.release((live.splice(below(rng, live.length), 1)[0] as (typeof live)[number]).lease);
      }
      const referenced = new Set(live.flatMap((one) => one.path));
      expect(pool.usedTokens).toBe(32 * referenced.size + live.reduce((sum, one) => sum + one.loose, 0));
      const now = cachedNow();
      for (const node of referenced) expect(now.has(node)).toBe(true);
      expect(now.size * 32).toBeLessThanOrEqual(Math.max(3200, pool.usedTokens));
      expect(now.size).toBe(pool.blockCount);
      if (round % 3 === 0) {
        replica.apply(pool.drainDelta());
        expect(replica.held).toEqual(now);
        expect(pool.hasDelta).toBe(false);
      }
    }
    for (const one of live) pool.release(one.lease);
    expect(pool.usedTokens).toBe(0);
  });
});
