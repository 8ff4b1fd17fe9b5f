import { expect, it } from 'vitest';
import { seededRng } from '../../../shared/env.ts';
import { HashIndex } from '../../../sim/engine/hash-index.ts';

it('behaves like a Map under random insertions and deletions, colliding keys included', () => {
  const rng = seededRng(3);
  const index = new HashIndex(64);
  const map = new Map<number, number>();
  // Few distinct low bits, so that probe sequences overlap and wrap.
  const keys = Array.from(
    { length: 200 },
    (_, i) => (i + 1) * 4294967296 + (i % 3 === 0 ? 127 : Math.floor(rng() * 8)),
  );
  for (let round = 0; round < 20000; round++) {
    const key = keys[Math.floor(rng() * keys.length)]!;
    if (map.has(key)) {
      map.delete(key);
      index.delete(key);
    } else if (map.size < 64) {
      map.set(key, round + 1);
      index.set(key, round + 1);
    }
    const probe = keys[Math.floor(rng() * keys.length)]!;
    expect(index.get(probe)).toBe(map.get(probe) ?? 0);
  }
  index.clear();
  for (const key of keys) expect(index.get(key)).toBe(0);
});
