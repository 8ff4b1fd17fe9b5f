import { accessSync, constants, mkdirSync, statSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { dirname, resolve } from 'node:path';
import { errorMessage, LodestarError } from './errors.ts';

/**
 * Makes a folder for state, private to this user, with the folders above it. One at a time: Node's recursive mkdir
 * never returns below a folder such as
 * /proc that answers ENOENT. Error: CONFIG_INVALID with the key that names the folder.
 */
export function makeStateDir(dir: string, key: string): void {
  try {
    makeDir(resolve(dir));
    accessSync(dir, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw stateDirError(dir, key, error);
  }
}

const { errno: osErrors } = osConstants;
const NO_ROOM: ReadonlySet<unknown> = new Set([
  'ENOSPC',
  'EDQUOT',
  'EIO',
  osErrors.ENOSPC,
  osErrors.EDQUOT,
  osErrors.EIO,
]);

/**
 * True if an error, or what caused it, is a disk that is full or fails: unlike others it may pass without anybody's
 * doing.
 */
export function isNoRoom(error: unknown): boolean {
  for (let one = error; one instanceof Error; one = one.cause)
    if (NO_ROOM.has((one as { code?: unknown }).code)) return true;
  return false;
}

/** CONFIG_INVALID that says what to do about a state folder that cannot be used. */
export function stateDirError(dir: string, key: string, error: unknown): LodestarError {
  return new LodestarError(
    'CONFIG_INVALID',
    `${key}: cannot write ${dir} (${errorMessage(error)}); choose a folder that this user can write`,
    { cause: error },
  );
}

function makeDir(dir: string): void {
  const found = statSync(dir, { throwIfNoEntry: false });
  if (found?.isDirectory()) return;
  if (found) throw new Error(`${dir} is not a folder`);
  makeDir(dirname(dir));
  try {
    mkdirSync(dir, { mode: 0o700 });
  } catch (error) {
    // Another process may have made it meanwhile.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}
