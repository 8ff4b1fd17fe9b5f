import {
  closeSync,
  existsSync,
  fstatSync,
  openSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';

/** LMDB's files in its folder. */
export const DATA_FILE = 'data.mdb';
export const LOCK_FILE = 'lock.mdb';
/** Reader slots and mutexes of LMDB, with room to spare. */
const LOCK_BYTES = 16_384;
/** What an empty store takes at its first transactions. */
const FIRST_BYTES = 524_288;
/**
 * Beyond twice what is written, a transaction takes copies of the pages on the way to it, and of the list of free ones.
 */
const MARGIN_BYTES = 262_144;
/** The file grows by this much more than is asked for, where there is room, so that it rarely has to. */
const STEP_BYTES = 524_288;
const ZEROS = Buffer.alloc(65_536);

/**
 * Room for LMDB on its disk, taken before it writes: where one of its own writes finds none, LMDB 0.9 as lmdb-js has it
 * spoils the memory of the process. Its file is made longer here by zeros, which it does not look at and writes over
 * later, so the disk fails this plain write instead. Single process.
 */
export class StoreRoom {
  private readonly path: string;
  private allocatedBytes = 0;

  constructor(dir: string) {
    this.path = join(dir, DATA_FILE);
  }

  /**
   * Makes sure that `bytes` can be written where the file is used up to `usedBytes`. Throws the disk's error (ENOSPC).
   */
  ensure(usedBytes: number, bytes: number): void {
    const neededBytes = usedBytes + 2 * bytes + MARGIN_BYTES;
    if (this.allocatedBytes >= neededBytes) return;
    const file = openSync(this.path, 'r+');
    try {
      this.allocatedBytes = Math.max(this.allocatedBytes, fstatSync(file).size);
      this.grow(file, neededBytes);
      this.growIfThereIsRoom(file, neededBytes + STEP_BYTES);
    } finally {
      closeSync(file);
    }
  }

  /** Gives back what is not used; the store must be closed. */
  release(usedBytes: number): void {
    if (this.allocatedBytes > usedBytes) truncateSync(this.path, usedBytes);
  }

  private grow(file: number, toBytes: number): void {
    while (this.allocatedBytes < toBytes) {
      this.allocatedBytes += writeSync(
        file,
        ZEROS,
        0,
        Math.min(ZEROS.length, toBytes - this.allocatedBytes),
        this.allocatedBytes,
      );
    }
  }

  private growIfThereIsRoom(file: number, toBytes: number): void {
    try {
      this.grow(file, toBytes);
    } catch {
      // What was asked for is there.
    }
  }
}

/** Makes sure that a store can be opened, or made, in a folder. Throws the disk's error (ENOSPC). */
export function ensureRoomToOpen(dir: string): void {
  const lock = join(dir, LOCK_FILE);
  // LMDB maps its lock file as it is, holes included, and a hole that the disk has no block for ends the process.
  if (!existsSync(lock) || statSync(lock).size === 0) writeWhole(lock, LOCK_BYTES);
  if (existsSync(join(dir, DATA_FILE))) return;
  const trial = join(dir, 'room.new');
  try {
    writeWhole(trial, FIRST_BYTES);
  } finally {
    rmSync(trial, { force: true });
  }
}

function writeWhole(path: string, bytes: number): void {
  try {
    writeFileSync(path, Buffer.alloc(bytes), { mode: 0o600 });
  } catch (error) {
    rmSync(path, { force: true });
    throw error;
  }
}
