import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { decode, encode } from '../../shared/codec.ts';
import type { Clock, Log } from '../../shared/env.ts';
import { errorMessage, LodestarError } from '../../shared/errors.ts';
import { isNoRoom, makeStateDir, stateDirError } from '../../shared/state-dir.ts';
import {
  MAX_TABLE_BYTES,
  openTable,
  type RoutingTable,
  sealedTableSchema,
  type SealedTable,
} from '../../shared/table.ts';

const KEY = 'agent.stateDir';
const TABLE_FILE = 'table.bin';
const IDENTITY_FILE = 'identity.json';

const storedSchema = z.object({ salt: z.string().length(64), sealed: sealedTableSchema });
const identitySchema = z.object({ credential: z.string().min(16).max(256), epoch: z.number().int().nonnegative() });

/** Who this agent is to the brain: a secret of its id, and the number of this boot. */
export interface Identity {
  credential: string;
  epoch: number;
}

/** How files come to disk; tests give others. */
export interface FileWriter {
  write(path: string, bytes: Uint8Array): Promise<void>;
  writeSync(path: string, bytes: Uint8Array): void;
}

/**
 * The agent's state on disk: the last routing table, with which it routes after a restart even if the brain is away,
 * and its identity. A disk that is full or fails costs what a restart would find there, never the agent.
 */
export class TableStore {
  private readonly dir: string;
  private readonly log: Log;
  private readonly files: FileWriter;
  /** the newest table that waits for the one that is being written */
  private next: Uint8Array | undefined;
  private writing: Promise<void> | undefined;
  private isFailing = false;
  private unsavedIdentity: Buffer | undefined;

  /** Makes the folder if need be. Error: CONFIG_INVALID if it cannot be written, other than for lack of room. */
  constructor(dir: string, log: Log, files: FileWriter = { write: replaceFile, writeSync: replaceFileSync }) {
    this.dir = dir;
    this.log = log;
    this.files = files;
    this.makeDir();
  }

  /**
   * This agent's credential, made at its first start, and an epoch above every earlier one. Where the disk has no room,
   * they are known to this run only. Error: CONFIG_INVALID if they cannot be read or written.
   */
  boot(clock: Clock, makeCredential: () => string): Identity {
    const known = this.readIdentity();
    const identity = {
      credential: known?.credential ?? makeCredential(),
      epoch: Math.max(clock.wallMs(), (known?.epoch ?? 0) + 1),
    };
    const bytes = Buffer.from(JSON.stringify(identity));
    try {
      this.files.writeSync(join(this.dir, IDENTITY_FILE), bytes);
    } catch (error) {
      if (!isNoRoom(error)) throw stateDirError(this.dir, KEY, error);
      this.unsavedIdentity = bytes;
      const lost = known ? '' : ': the brain keeps this agent.id for a credential that a restart would not know';
      this.log.warn(
        { dir: this.dir, error: errorMessage(error) },
        `the identity of this agent could not be written${lost}; make room in ${KEY}`,
      );
    }
    return identity;
  }

  /**
   * Writes a table in the background, one at a time and the newest next. What fails is said once, until it works again.
   */
  save(sealed: SealedTable, salt: string): void {
    this.next = encode({ salt, sealed });
    this.writing ??= this.writeAll();
  }

  /** Settles once what was saved is on disk, or could not be written; never rejects. */
  async saved(): Promise<void> {
    await this.writing;
  }

  private async writeAll(): Promise<void> {
    for (let bytes = this.next; bytes; bytes = this.next) {
      this.next = undefined;
      try {
        this.makeDir();
        if (this.unsavedIdentity) await this.files.write(join(this.dir, IDENTITY_FILE), this.unsavedIdentity);
        this.unsavedIdentity = undefined;
        await this.files.write(join(this.dir, TABLE_FILE), bytes);
        if (this.isFailing) this.log.info({ dir: this.dir }, 'the routing table can be written to disk again');
        this.isFailing = false;
      } catch (error) {
        if (!this.isFailing)
          this.log.warn(
            { dir: this.dir, error: errorMessage(error) },
            'the routing table could not be written to disk: a restart would begin with an older one',
          );
        this.isFailing = true;
      }
    }
    this.writing = undefined;
  }

  private makeDir(): void {
    try {
      makeStateDir(this.dir, KEY);
    } catch (error) {
      if (!isNoRoom(error)) throw error;
    }
  }

  /** The last table, or undefined if there is none or it is corrupt, which is said and ignored. */
  load(): { table: RoutingTable; salt: string } | undefined {
    let bytes: Buffer;
    try {
      bytes = readFileSync(join(this.dir, TABLE_FILE));
    } catch {
      return undefined;
    }
    try {
      const stored = storedSchema.parse(decode(bytes, MAX_TABLE_BYTES));
      return { table: openTable(stored.sealed), salt: stored.salt };
    } catch (error) {
      this.log.warn(
        { file: TABLE_FILE, error: errorMessage(error) },
        'the routing table on disk is corrupt and is ignored',
      );
      return undefined;
    }
  }

  /**
   * Undefined if there is none yet. A damaged one is not replaced: the brain would refuse the new credential, and say
   * so far from the cause.
   */
  private readIdentity(): Identity | undefined {
    const path = join(this.dir, IDENTITY_FILE);
    try {
      return identitySchema.parse(JSON.parse(readFileSync(path, 'utf8')));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT') return undefined;
      const why = code === undefined ? 'it is damaged' : errorMessage(error);
      const fix =
        'restore it, or delete it and choose another agent.id (the brain keeps an id for its old credential until the agent has been away for 7 days)';
      throw new LodestarError(
        'CONFIG_INVALID',
        `${KEY}: cannot read the identity of this agent in ${path}: ${why}; ${fix}`,
        { cause: error },
      );
    }
  }
}

/**
 * Replaces a file as a whole, so that a crash leaves the old one; on disk before it has the name, so that a power cut
 * does, too.
 */
async function replaceFile(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.new`;
  // One that a crash has left may be another user's, and takes up room.
  await rm(temporary, { force: true });
  try {
    const file = await open(temporary, 'w', 0o600);
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    // What is left of it would take up room that the next attempt needs.
    await rm(temporary, { force: true }).catch(() => undefined);
    throw error;
  }
}

/** The same at the start, before anything is served. */
function replaceFileSync(path: string, bytes: Uint8Array): void {
  const temporary = `${path}.new`;
  rmSync(temporary, { force: true });
  try {
    const file = openSync(temporary, 'w', 0o600);
    try {
      writeFileSync(file, bytes);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}
