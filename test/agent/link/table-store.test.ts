import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { TableStore } from '../../../agent/link/table-store.ts';
import { LodestarError } from '../../../shared/errors.ts';
import { decode } from '../../../shared/codec.ts';
import { openTable, type SealedTable, sealTable } from '../../../shared/table.ts';
import { logSpy } from '../../helpers/log-spy.ts';
import { tableOf } from '../../helpers/tables.ts';
import { VirtualClock } from '../../helpers/virtual-clock.ts';

const SALT = 'a'.repeat(64);
let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'lodestar-store-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function codeOf(run: () => unknown): unknown {
  try {
    return run();
  } catch (error) {
    return error instanceof LodestarError ? error.code : error;
  }
}

/** Saves a table and waits until it is on disk. */
async function save(store: TableStore, version = 0): Promise<void> {
  store.save(sealTable(tableOf({ version })), SALT);
  await store.saved();
}

/** A disk that can be full, and writes when the test lets it. */
function fakeDisk() {
  const disk = { isFull: false, written: [] as string[], held: [] as (() => void)[], isHeld: false };
  const put = (path: string): void => {
    if (disk.isFull) throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
    disk.written.push(basename(path));
  };
  const files = {
    write: async (path: string) => {
      if (disk.isHeld) await new Promise<void>((resolve) => disk.held.push(resolve));
      put(path);
    },
    writeSync: put,
  };
  return { disk, files };
}

test('a saved table comes back with its salt, and no half-written file is left', async () => {
  const { log } = logSpy();
  writeFileSync(join(dir, 'table.bin.new'), 'left by a crash', { mode: 0o400 });
  await save(new TableStore(dir, log), 9);
  expect(new TableStore(dir, log).load()).toEqual({ table: tableOf({ version: 9 }), salt: SALT });
  expect(readdirSync(dir)).toEqual(['table.bin']);
  expect(statSync(join(dir, 'table.bin')).mode & 0o077).toBe(0);
});

test('no table is no news', () => {
  const { log, lines } = logSpy();
  expect(new TableStore(dir, log).load()).toBeUndefined();
  expect(lines).toEqual([]);
});

test('a corrupt file, wherever the damage, is ignored and said', async () => {
  const { log, lines } = logSpy();
  const store = new TableStore(dir, log);
  await save(store);
  const path = join(dir, 'table.bin');
  const whole = readFileSync(path);
  const bodyStart = whole.length - sealTable(tableOf()).body.length;
  for (let at = bodyStart; at < whole.length; at += 7) {
    const bad = Buffer.from(whole);
    bad[at] = (bad[at] as number) ^ 0x10;
    writeFileSync(path, bad);
    expect(store.load()).toBeUndefined();
  }
  for (const bytes of [
    Buffer.alloc(0),
    whole.subarray(0, 10),
    whole.subarray(0, -1),
    Buffer.from('not a table'),
    Buffer.alloc(9 << 20),
  ]) {
    writeFileSync(path, bytes);
    lines.length = 0;
    expect(store.load()).toBeUndefined();
    expect(lines).toMatchObject([{ level: 40, file: 'table.bin' }]);
  }
});

test('the credential stays, and each boot has a higher epoch even if the wall clock went back', () => {
  const { log } = logSpy();
  const first = new TableStore(dir, log).boot(new VirtualClock(2_000_000), () => 'c'.repeat(32));
  const second = new TableStore(dir, log).boot(new VirtualClock(1_000_000), () => 'd'.repeat(32));
  expect(first).toEqual({ credential: 'c'.repeat(32), epoch: 2_000_000 });
  expect(second).toEqual({ credential: 'c'.repeat(32), epoch: 2_000_001 });
});

test.each(['', '{"credential":', '{}', '{"credential":"short","epoch":1}', 'null'])(
  'a damaged identity file stops the start and stays as it is: %s',
  (text) => {
    const path = join(dir, 'identity.json');
    writeFileSync(path, text);
    const boot = (): unknown => new TableStore(dir, logSpy().log).boot(new VirtualClock(5), () => 'e'.repeat(32));
    expect(codeOf(boot)).toBe('CONFIG_INVALID');
    expect(boot).toThrow(`${path}: it is damaged; restore it, or delete it and choose another agent.id`);
    expect(readFileSync(path, 'utf8')).toBe(text);
  },
);

test('an identity that cannot be read is not taken for none', () => {
  mkdirSync(join(dir, 'identity.json'));
  expect(() => new TableStore(dir, logSpy().log).boot(new VirtualClock(5), () => 'e'.repeat(32))).toThrow('EISDIR');
});

test('a folder that cannot be made or written is a configuration error that names the key', () => {
  const { log } = logSpy();
  const file = join(dir, 'file');
  writeFileSync(file, '');
  expect(codeOf(() => new TableStore(file, log))).toBe('CONFIG_INVALID');
  expect(codeOf(() => new TableStore(join(file, 'below'), log))).toBe('CONFIG_INVALID');
  // A folder in the file's place stops every user, root included.
  mkdirSync(join(dir, 'identity.json.new'));
  expect(codeOf(() => new TableStore(dir, log).boot(new VirtualClock(), () => 'f'.repeat(32)))).toBe('CONFIG_INVALID');
});

test('a table that cannot be saved is said, and routing goes on', async () => {
  const { log, lines } = logSpy();
  const store = new TableStore(dir, log);
  mkdirSync(join(dir, 'table.bin.new'));
  chmodSync(dir, 0o700);
  await save(store);
  expect(lines).toMatchObject([{ level: 40 }]);
});

test('tables are written one at a time, and of those that wait the newest', async () => {
  const { disk, files } = fakeDisk();
  const versions: number[] = [];
  const store = new TableStore(dir, logSpy().log, {
    ...files,
    write: async (path, bytes) => {
      await files.write(path);
      versions.push(openTable((decode(bytes, 1 << 20) as { sealed: SealedTable }).sealed).version);
    },
  });
  disk.isHeld = true;
  for (const version of [1, 2, 3, 4]) store.save(sealTable(tableOf({ version })), SALT);
  await new Promise((resolve) => setImmediate(resolve));
  expect(disk.held).toHaveLength(1);
  disk.isHeld = false;
  for (const release of disk.held) release();
  await store.saved();
  expect(versions).toEqual([1, 4]);
});

test('a full disk stops neither the start nor routing; it is said once, and so is the end of it', async () => {
  const { log, lines } = logSpy();
  const { disk, files } = fakeDisk();
  disk.isFull = true;
  const store = new TableStore(join(dir, 'new'), log, files);
  expect(store.boot(new VirtualClock(5), () => 'e'.repeat(32))).toEqual({ credential: 'e'.repeat(32), epoch: 5 });
  for (const version of [1, 2, 3]) await save(store, version);
  expect(lines.map(({ level }) => level)).toEqual([40, 40]);
  expect(lines[0]?.msg).toContain('the identity of this agent could not be written');
  disk.isFull = false;
  for (const version of [4, 5]) await save(store, version);
  expect(disk.written).toEqual(['identity.json', 'table.bin', 'table.bin']);
  expect(lines.slice(2)).toMatchObject([{ level: 30, msg: 'the routing table can be written to disk again' }]);
});
