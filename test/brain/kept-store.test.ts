import { copyFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { newCounters } from '../../brain/counters.ts';
import { KeptStore, TRY_AGAIN_MS } from '../../brain/kept-store.ts';
import { type DiskStore, Store } from '../../brain/store.ts';
import { sealTable } from '../../shared/table.ts';
import { logSpy } from '../helpers/log-spy.ts';
import { tableOf } from '../helpers/tables.ts';
import { VirtualClock } from '../helpers/virtual-clock.ts';
import { featureRow, sample, storeIn, tempDir } from './fixtures.ts';

const BINDING = { digest: 'd'.repeat(64), lastSeenWallMs: 1 };
const SAMPLES = [sample(featureRow(), 0, 0)];

let dir: ReturnType<typeof tempDir>;
let clock: VirtualClock;
let spy: ReturnType<typeof logSpy>;

beforeEach(() => {
  dir = tempDir();
  clock = new VirtualClock();
  spy = logSpy();
});
afterEach(() => dir.remove());

/** Lets a try at the disk come to its end. */
async function tryAgain(): Promise<void> {
  await clock.advanceWithIo(TRY_AGAIN_MS, TRY_AGAIN_MS);
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** An error as LMDB throws it. */
function lmdbError(code: number, message: string): Error {
  return Object.assign(new Error(message), { code });
}

/** A real store whose writes fail with `error` while it is set, and that cannot be opened while `isAbsent`. */
function failingStore() {
  const state: { error: Error | undefined; isAbsent: boolean; asides: string[]; tries: number } = {
    error: undefined,
    isAbsent: false,
    asides: [],
    tries: 0,
  };
  const counters = newCounters();
  const open = (): DiskStore | undefined => {
    state.tries += 1;
    if (state.isAbsent) return undefined;
    const real = new Store(join(dir.dir, String(state.asides.length)));
    return new Proxy(real, {
      get(target, name: keyof Store) {
        const value: unknown = Reflect.get(target, name);
        if (typeof value !== 'function') return value;
        return (...args: unknown[]): unknown => {
          if (state.error && /^(save|append|prune|probe)/.test(name)) throw state.error;
          return (value as (...all: unknown[]) => unknown).apply(target, args);
        };
      },
    });
  };
  const place = {
    open,
    isDamage: (error: unknown) => (error as { code?: number }).code === -30796,
    setAside: (why: string) => void state.asides.push(why),
  };
  return { state, counters, store: new KeptStore(place, { clock, log: spy.log }, counters) };
}

function count(store: { samplesSince(sinceWallMs: number): Iterable<unknown> }): number {
  return [...store.samplesSince(0)].length;
}

describe('a disk that is full', () => {
  it('costs nothing but memory: what must last is kept and written once there is room', async () => {
    const { state, counters, store } = failingStore();
    const salt = store.salt();
    await store.appendSamples(SAMPLES, 5);
    state.error = lmdbError(28, 'No space left on device');
    for (let version = 1; version <= 20; version++) {
      store.saveTable(sealTable(tableOf({ version })), version);
      store.saveBinding(`a${version}`, BINDING);
      await store.appendSamples(SAMPLES, 6);
      await store.pruneSamples(0);
    }
    store.savePolicy({ policy: 'lmetric', objective: 'e2e' });
    expect(store.lastVersion()).toBe(20);
    expect(store.policy()).toEqual({ policy: 'lmetric', objective: 'e2e' });
    expect(store.binding('a3')).toEqual(BINDING);
    expect(store.salt()).toBe(salt);
    expect(store.status()).toMatchObject({ ok: false, problem: 'No space left on device' });
    expect(counters).toMatchObject({ storeFailures: 1, samplesNotStored: 20 });
    await tryAgain();
    expect(spy.lines).toMatchObject([
      { level: 50, msg: expect.stringContaining('the store cannot be written') as string },
    ]);

    state.error = undefined;
    await tryAgain();
    expect(store.status()).toEqual({ ok: true, problem: null, sinceWallMs: null });
    expect(spy.lines.slice(1)).toMatchObject([{ level: 30, msg: 'the store can be written again' }]);
    await store.appendSamples(SAMPLES, 7);
    await store.close();
    const after = new Store(join(dir.dir, '0'));
    expect([
      after.lastVersion(),
      after.storedSalt(),
      after.policy()?.policy,
      after.binding('a20'),
      count(after),
    ]).toEqual([20, salt, 'lmetric', BINDING, 2]);
    await after.close();
  });

  it('may be there at the start: the store is opened once there is room', async () => {
    const rig = failingStore();
    await rig.store.close();
    rig.state.isAbsent = true;
    const store = new KeptStore(
      {
        open: () => (rig.state.isAbsent ? undefined : new Store(dir.dir)),
        isDamage: () => false,
        setAside: () => undefined,
      },
      { clock, log: spy.log },
      rig.counters,
    );
    const [epoch, salt] = [store.nextEpoch(100), store.salt()];
    expect(epoch).toBe(100);
    expect([store.lastTable(), store.lastVersion(), store.policy(), store.binding('a'), count(store)]).toEqual([
      null,
      0,
      null,
      null,
      0,
    ]);
    rig.state.isAbsent = false;
    await tryAgain();
    await store.close();
    const after = new Store(dir.dir);
    expect([after.lastEpoch(), after.storedSalt()]).toEqual([100, salt]);
    await after.close();
  });
});

describe('a damaged store', () => {
  it('that shows while it is in use is set aside, and another one gets what is known', async () => {
    const { state, store } = failingStore();
    const salt = store.salt();
    store.nextEpoch(9);
    state.error = lmdbError(-30796, 'MDB_CORRUPTED');
    store.savePolicy({ policy: 'lmetric', objective: 'e2e' });
    state.error = undefined;
    await tryAgain();
    expect(state.asides).toEqual(['MDB_CORRUPTED']);
    await store.close();
    const after = new Store(join(dir.dir, '1'));
    expect([after.lastEpoch(), after.storedSalt(), after.policy()?.policy]).toEqual([9, salt, 'lmetric']);
    await after.close();
  });

  async function stored(): Promise<Buffer> {
    const store = storeIn(dir.dir, clock, spy.log);
    store.salt();
    store.saveTable(sealTable(tableOf({ version: 3 })), 3);
    for (let i = 0; i < 30; i++)
      await store.appendSamples(
        Array.from({ length: 20 }, () => SAMPLES[0]!),
        i,
      );
    await store.close();
    return readFileSync(join(dir.dir, 'data.mdb'));
  }

  it.each<[string, (whole: Buffer) => Buffer]>([
    ['an empty file', () => Buffer.alloc(0)],
    ['a file cut in the middle', (whole) => whole.subarray(0, 4096 * Math.floor(whole.length / 8192))],
    ['a file of a few bytes', (whole) => whole.subarray(0, 100)],
    ['another file', () => Buffer.from('not a store\n'.repeat(5000))],
    ['zeros', (whole) => Buffer.alloc(whole.length)],
    [
      'garbage in the middle',
      (whole) => Buffer.concat([whole.subarray(0, 8192), Buffer.alloc(whole.length - 8192, 0xa7)]),
    ],
  ])('%s is set aside with one line, and an empty store takes its place', async (_name, spoil) => {
    const whole = await stored();
    writeFileSync(join(dir.dir, 'data.mdb'), spoil(whole));
    const store = storeIn(dir.dir, clock, spy.log);
    expect(spy.lines).toMatchObject([
      { level: 50, msg: 'the store is damaged and was set aside: the brain begins with an empty one' },
    ]);
    expect([store.lastVersion(), count(store), store.status().ok]).toEqual([0, 0, true]);
    store.saveTable(sealTable(tableOf({ version: 1 })), 1);
    await store.appendSamples(SAMPLES, 1);
    expect(count(store)).toBe(1);
    await store.close();
    expect(readdirSync(dir.dir).filter((name) => name.startsWith('data.mdb.damaged-'))).toHaveLength(1);
  });

  it('leaves no more than three behind, and a good one is left alone', async () => {
    for (let i = 0; i < 5; i++) {
      writeFileSync(join(dir.dir, 'data.mdb'), '');
      clock.advance(1);
      await storeIn(dir.dir, clock, spy.log).close();
    }
    expect(readdirSync(dir.dir).filter((name) => name.startsWith('data.mdb.damaged-'))).toHaveLength(3);
    await stored();
    copyFileSync(join(dir.dir, 'data.mdb'), join(dir.dir, 'copy'));
    const before = spy.lines.length;
    const store = storeIn(dir.dir, clock, spy.log);
    expect([store.lastVersion(), count(store), spy.lines.length - before]).toEqual([3, 600, 0]);
    await store.close();
    expect(existsSync(join(dir.dir, 'data.mdb'))).toBe(true);
  });
});
