import { spawnSync, type SpawnSyncOptionsWithStringEncoding } from 'node:child_process';
import { existsSync, readdirSync, renameSync, rmSync, statfsSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Log } from '../shared/env.ts';
import { packageRoot } from '../shared/package-root.ts';

const DATA_FILE = 'data.mdb';
const LOCK_FILE = 'lock.mdb';
const ASIDE = `${DATA_FILE}.damaged-`;
/** Damaged stores kept for whoever wants to look. */
const ASIDE_MAX = 3;
/** Far above what the largest store takes: a check that lasts longer goes in circles. */
const CHECK_MS = 20_000;
/** By these a process ends that follows a page number to where no page is. */
const CRASHES: ReadonlySet<string> = new Set(['SIGSEGV', 'SIGBUS', 'SIGABRT', 'SIGILL', 'SIGFPE', 'SIGTRAP']);

/**
 * Opens a store, reads all of it, gives up a transaction that removes all, and makes one that leaves things as they
 * are: LMDB trusts what lies in its file, so damage ends the process that comes upon it. Plain JavaScript, since Node
 * 20 starts no TypeScript.
 */
const SCRIPT = `
const { open, ABORT } = require('lmdb');
try {
  const root = open({ path: process.argv[1], encoding: 'binary', maxDbs: 4 });
  const parts = ['credentials', 'samples'].map((name) => root.openDB({ name, encoding: 'binary' }));
  let sum = 0;
  for (const part of [root, ...parts]) for (const { value } of part.getRange({})) if (value) for (let i = 0; i < value.length; i += 512) sum += value[i];
  root.transactionSync(() => {
    for (const part of parts) for (const key of [...part.getKeys()]) part.removeSync(key);
    return ABORT;
  });
  root.transactionSync(() => {
    root.putSync('check', Buffer.alloc(65536));
    root.removeSync('check');
  });
  process.exit(0);
} catch (error) {
  process.stdout.write(String(error.code));
  process.exit(1);
}`;

/**
 * LMDB's codes of a page that is not there, of a wrong kind, or of a file that is none of its own; and of a store that
 * cannot go on after such an error.
 */
const DAMAGE_CODES: ReadonlySet<unknown> = new Set([-30797, -30796, -30795, -30794, -30793]);
/** A transaction cannot be completed, for whatever reason: damage, or a disk without room. */
const BAD_TRANSACTION = -30782;
/** Room that any transaction of the brain finds enough. */
const ROOM_BYTES = 8 * 1024 * 1024;

/** True for an error of LMDB in a folder that is due to what lies in its file. */
export function isDamage(error: unknown, dir: string): boolean {
  const { code } = error as { code?: unknown };
  return DAMAGE_CODES.has(code) || (code === BAD_TRANSACTION && hasRoom(dir));
}

function hasRoom(dir: string): boolean {
  try {
    const { bavail, bsize } = statfsSync(dir);
    return bavail * bsize >= ROOM_BYTES;
  } catch {
    return false;
  }
}

/**
 * Looks at the store of a folder before it is mapped, and sets a damaged one aside, said in one line. Not recognised is
 * damage that leaves pages in order, within a value for example: values are checked when they are read. Nothing is said
 * of a store that cannot be opened for another reason.
 */
export function setDamagedAside(dir: string, wallMs: number, log: Log): void {
  const path = join(dir, DATA_FILE);
  if (!existsSync(path)) return;
  const why = statSync(path).size === 0 ? 'the file is empty' : damageOf(dir);
  if (why !== undefined) setAside(dir, why, wallMs, log);
}

/** Renames the store of a folder, so that the next one that is opened there is empty; says so. */
export function setAside(dir: string, why: string, wallMs: number, log: Log): void {
  const aside = `${ASIDE}${Math.floor(wallMs)}`;
  renameSync(join(dir, DATA_FILE), join(dir, aside));
  rmSync(join(dir, LOCK_FILE), { force: true });
  for (const old of readdirSync(dir)
    .filter((name) => name.startsWith(ASIDE))
    .toSorted()
    .slice(0, -ASIDE_MAX))
    rmSync(join(dir, old), { force: true });
  log.error({ dir, aside, why }, 'the store is damaged and was set aside: the brain begins with an empty one');
}

function damageOf(dir: string): string | undefined {
  const options: SpawnSyncOptionsWithStringEncoding = {
    cwd: packageRoot,
    timeout: CHECK_MS,
    killSignal: 'SIGKILL',
    stdio: ['ignore', 'pipe', 'ignore'],
    encoding: 'utf8',
  };
  const { status, signal, error, stdout } = spawnSync(process.execPath, ['-e', SCRIPT, resolve(dir)], options);
  if ((error as NodeJS.ErrnoException | undefined)?.code === 'ETIMEDOUT')
    return `reading it did not end within ${CHECK_MS / 1000} s`;
  if (signal !== null && CRASHES.has(signal)) return `reading it ends a process by ${signal}`;
  return status === 1 && isDamage({ code: Number(stdout) }, dir)
    ? `LMDB finds an error in it (code ${stdout})`
    : undefined;
}
