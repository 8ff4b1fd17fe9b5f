import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Store } from '../../brain/store.ts';
import { ensureRoomToOpen, StoreRoom } from '../../brain/store-room.ts';
import { featureRow, sample, tempDir } from './fixtures.ts';

let dir: ReturnType<typeof tempDir>;
beforeEach(() => {
  dir = tempDir();
});
afterEach(() => dir.remove());

it('makes the file longer by zeros before they are needed, never shorter, and gives back what is not used', () => {
  const path = join(dir.dir, 'data.mdb');
  writeFileSync(path, 'what is used');
  const room = new StoreRoom(dir.dir);
  room.ensure(12, 1000);
  const { size } = statSync(path);
  expect(size).toBeGreaterThan(2012);
  expect(readFileSync(path).subarray(0, 12).toString()).toBe('what is used');
  expect(
    readFileSync(path)
      .subarray(12)
      .every((byte) => byte === 0),
  ).toBe(true);
  room.ensure(12, 900);
  expect(statSync(path).size).toBe(size);
  room.ensure(size, 1000);
  expect(statSync(path).size).toBeGreaterThan(size + 2000);
  room.release(12);
  expect(readFileSync(path).toString()).toBe('what is used');
});

it('a file that cannot be made longer is said before LMDB would meet it', () => {
  expect(() => new StoreRoom(join(dir.dir, 'nowhere')).ensure(0, 1)).toThrow('ENOENT');
  ensureRoomToOpen(dir.dir);
  expect(existsSync(join(dir.dir, 'room.new'))).toBe(false);
});

it('a store has its room before it writes, and is as long as its pages once it is closed', async () => {
  const store = new Store(dir.dir);
  const path = join(dir.dir, 'data.mdb');
  const samples = Array.from({ length: 3000 }, () => sample(featureRow(), 0, 0));
  for (let i = 0; i < 3; i++) {
    await store.appendSamples(samples, i);
    // Twice what the next small write takes, and the margin.
    const stats = Reflect.get(store, 'usedBytes') as () => number;
    expect(statSync(path).size).toBeGreaterThan(stats.call(store) - 1);
  }
  await store.close();
  const whole = statSync(path).size;
  const again = new Store(dir.dir);
  expect([...again.samplesSince(0)]).toHaveLength(9000);
  again.saveEpoch(5);
  expect(statSync(path).size).toBeGreaterThan(whole);
  await again.close();
  expect(statSync(path).size).toBeLessThan(whole + 100_000);
});
