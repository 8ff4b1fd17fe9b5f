import { expect, test } from 'vitest';
import { HEAD_WORDS } from '../../../shared/blocks/block-rows.ts';
import { BlockStore } from '../../../shared/blocks/block-store.ts';
import { seededRng } from '../../../shared/env.ts';
import { below } from '../../helpers/random.ts';

/** Hashes that all want the same place. */
function sameHome(n: number): number[] {
  return Array.from({ length: n }, (_, i) => i * 4294967296 + ((i ^ 0x5555) >>> 0));
}

test('made-up hashes that all want one place are refused at some point, and neither hang nor grow it', () => {
  const store = new BlockStore(4, 0);
  const hashes = sameHome(5000);
  const slots = hashes.map((hash) => store.put(hash));
  const taken = hashes.filter((_, i) => (slots[i] as number) >= 0);
  expect(taken.length).toBeGreaterThan(100);
  expect(taken.length).toBeLessThan(256);
  expect(store.bytes).toBeLessThan(20_000);
  expect(taken.map((hash) => store.find(hash))).toEqual(slots.filter((slot) => slot >= 0));
  // Honest ones that come to lie beside them are refused at worst.
  const others = Array.from({ length: 20_000 }, (_, i) => i + 1).filter((hash) => store.put(hash) >= 0);
  expect(others.length).toBeGreaterThan(19_000);
  for (const hash of taken) store.remove(store.find(hash));
  expect(hashes.filter((hash) => store.find(hash) >= 0)).toEqual([]);
  for (const hash of others) store.remove(store.find(hash));
  expect(store.count).toBe(0);
});

test('rows stay where they are while others come and go, and what comes in a run lies in a run', () => {
  const store = new BlockStore(1, 2);
  const slots = Array.from({ length: 1000 }, (_, i) => store.put(i + 1));
  expect(slots.filter((slot, i) => i > 0 && slot !== (slots[i - 1] as number) + 1).length).toBeLessThan(10);
  for (let i = 1000; i < 60_000; i++) store.put(i + 1);
  expect(slots.map((_, i) => store.find(i + 1))).toEqual(slots);
});

test('rows that are given back are zero, and whole chunks of them are given up', () => {
  const rng = seededRng(3);
  const store = new BlockStore(2, 1);
  const held = new Map<number, number>();
  for (let round = 0; round < 300_000; round++) {
    const hash = 1 + below(rng, 90_000);
    const slot = held.get(hash);
    if (slot === undefined) held.set(hash, store.put(hash));
    else {
      store.remove(slot);
      held.delete(hash);
    }
  }
  expect(store.count).toBe(held.size);
  const full = store.bytes;
  for (const slot of held.values()) store.remove(slot);
  expect(store.count).toBe(0);
  expect(store.bytes).toBeLessThan(full / 2);
  expect(store.rows.chunks.every((rows) => rows.every((word) => word === 0))).toBe(true);
});

test('rows of a chunk are made wider when they need it, and keep what they hold', () => {
  const store = new BlockStore(1, 0);
  const slots = Array.from({ length: 200 }, (_, i) => store.put((i + 1) * 2 ** 33 + i));
  store.rows.widen(0, 3);
  expect(store.rows.strides[0]).toBe(HEAD_WORDS + 3);
  expect(slots.map((_, i) => store.find((i + 1) * 2 ** 33 + i))).toEqual(slots);
});
