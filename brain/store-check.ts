import { spawnSync, type SpawnSyncOptionsWithStringEncoding } from 'node:child_process';
import { existsSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Log } from '../shared/env.ts';
import { packageRoot } from '../shared/package-root.ts';
import { DATA_FILE, LOCK_FILE, StoreRoom } from './store-room.ts';

const ASIDE = `${DATA_FILE}.damaged-`;
/** Damaged stores kept for whoever wants to look. */
const ASIDE_MAX = 3;
/** Far above what the largest store takes: a check that lasts longer goes in circles. */
const CHECK_MS = 20_000;
/** By these a process ends that follows a page number to where no page is. */
const CRASHES: ReadonlySet<string> = new Set(['SIGSEGV', 'SIGBUS', 'SIGABRT', 'SIGILL', 'SIGFPE', 'SIGTRAP']);

/** What the check of a store writes and removes. */
const TRIAL_BYTES = 65_536;
/**
 * Opens a store and reads all of it, or makes a transaction that leaves things as they are: LMDB trusts what lies in
 * its file, so damage ends the process that comes upon it. Plain JavaScript, since Node 20 starts no TypeScript.
 */
const SCRIPT = `
const { open } = require('lmdb');
try {
  const root = open({ path: process.argv[1], encoding: 'binary', maxDbs: 4 });
  if (process.argv[2] === 'write') {
    root.transactionSync(() => {
      root.putSync('check', Buffer.alloc(${TRIAL_BYTES}));
      root.removeSync('check');
    });
    process.exit(0);
  }
  let sum = 0;
  for (const name of [undefined, 'credentials', 'samples']) {
    const part = name === undefined ? root : root.openDB({ name, encoding: 'binary' });
    for (const { value } of part.getRange({})) if (value) for (let i = 0; i < value.length; i += 512) sum += value[i];
  }
  process.stdout.write('used ' + (root.getStats().lastPageNumber + 1) * root.getStats().pageSize);
  process.exit(0);
} catch (error) {
  process.stdout.write(String(error.code));
  process.exit(1);
}`;

/**
 * LMDB's codes of a page that is not there, of a wrong kind, or of a file that is none of its own; and of a store or a
 * transaction that cannot go on after such an error.
 */
const DAMAGE_CODES: ReadonlySet<unknown> = new Set([-30797, -30796, -30795, -30794, -30793, -30782]);
/**
 * True for an error by which LMDB says that what lies in its file cannot be. That the disk has room is seen to before
 * (store-room.ts).
 */
export function isDamage(error: unknown): boolean {
  return DAMAGE_CODES.has((error as { code?: unknown }).code);
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
  const read = run(dir, 'read');
  if (read.damage !== undefined) return read.damage;
  const usedBytes = Number(/^used (\d+)$/.exec(read.told)?.[1]);
  try {
    new StoreRoom(dir).ensure(usedBytes, TRIAL_BYTES);
  } catch {
    // Without room there is no trial, or the disk's refusal would be taken for damage.
    return undefined;
  }
  return run(dir, 'write').damage;
}

function run(dir: string, task: 'read' | 'write'): { told: string; damage: string | undefined } {
  const options: SpawnSyncOptionsWithStringEncoding = {
    cwd: packageRoot,
    timeout: CHECK_MS,
    killSignal: 'SIGKILL',
    stdio: ['ignore', 'pipe', 'ignore'],
    encoding: 'utf8',
  };
  const { status, signal, error, stdout } = spawnSync(process.execPath, ['-e', SCRIPT, resolve(dir), task], options);
  const doing = task === 'read' ? 'reading it' : 'writing to it';
  let damage: string | undefined;
  if ((error as NodeJS.ErrnoException | undefined)?.code === 'ETIMEDOUT')
    damage = `${doing} did not end within ${CHECK_MS / 1000} s`;
  else if (signal !== null && CRASHES.has(signal)) damage = `${doing} ends a process by ${signal}`;
  else if (status === 1 && isDamage({ code: Number(stdout) })) damage = `LMDB finds an error in it (code ${stdout})`;
  return { told: stdout, damage };
}
