import { mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { TableStore } from '../../agent/link/table-store.ts';
import { Store } from '../../brain/store.ts';
import { silentLog } from '../../shared/env.ts';
import { LodestarError } from '../../shared/errors.ts';
import { makeStateDir } from '../../shared/state-dir.ts';

let dir = '';
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'lodestar-state-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function problem(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    expect((error as LodestarError).code).toBe('CONFIG_INVALID');
    return (error as LodestarError).message;
  }
  throw new Error('nothing was refused');
}

test('makes the folders that are missing, for their owner only, and takes them as they are later', () => {
  const deep = join(dir, 'a', 'b');
  makeStateDir(deep, 'agent.stateDir');
  makeStateDir(deep, 'agent.stateDir');
  expect(statSync(deep).mode & 0o777).toBe(0o700);
});

test('a folder that cannot be is refused at once, by the agent and by the brain', () => {
  writeFileSync(join(dir, 'file'), '');
  symlinkSync(join(dir, 'nowhere'), join(dir, 'link'));
  for (const bad of [
    '/proc/nope',
    '/proc/nope/deeper',
    join(dir, 'file'),
    join(dir, 'file', 'below'),
    join(dir, 'link'),
  ]) {
    expect(problem(() => new TableStore(bad, silentLog))).toContain(`agent.stateDir: cannot write ${bad} (`);
    expect(problem(() => new Store(bad))).toContain(`brain.stateDir: cannot write ${bad} (`);
  }
});
