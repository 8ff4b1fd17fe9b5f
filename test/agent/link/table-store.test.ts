import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { TableStore } from '../../../agent/link/table-store.ts';
import { LodestarError } from '../../../shared/errors.ts';
import { sealTable } from '../../../shared/table.ts';
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

test('a saved table comes back with its salt, and no half-written file is left', () => {
  const { log } = logSpy();
  new TableStore(dir, log).save(sealTable(tableOf({ version: 9 })), SALT);
  expect(new TableStore(dir, log).load()).toEqual({ table: tableOf({ version: 9 }), salt: SALT });
  expect(readdirSync(dir)).toEqual(['table.bin']);
  expect(statSync(join(dir, 'table.bin')).mode & 0o077).toBe(0);
});

test('no table is no news', () => {
  const { log, lines } = logSpy();
  expect(new TableStore(dir, log).load()).toBeUndefined();
  expect(lines).toEqual([]);
});

test('a corrupt file, wherever the damage, is ignored and said', () => {
  const { log, lines } = logSpy();
  const store = new TableStore(dir, log);
  store.save(sealTable(tableOf()), SALT);
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

test('a table that cannot be saved is said, and routing goes on', () => {
  const { log, lines } = logSpy();
  const store = new TableStore(dir, log);
  mkdirSync(join(dir, 'table.bin.new'));
  chmodSync(dir, 0o700);
  store.save(sealTable(tableOf()), SALT);
  expect(lines).toMatchObject([{ level: 40 }]);
});
