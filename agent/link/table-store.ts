import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { decode, encode } from '../../shared/codec.ts';
import type { Clock, Log } from '../../shared/env.ts';
import { errorMessage, LodestarError } from '../../shared/errors.ts';
import { makeStateDir, stateDirError } from '../../shared/state-dir.ts';
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

/**
 * The agent's state on disk: the last routing table, with which it routes after a restart even if the brain is away,
 * and its identity.
 */
export class TableStore {
  private readonly dir: string;
  private readonly log: Log;

  /** Makes the folder if need be. Error: CONFIG_INVALID if it cannot be written. */
  constructor(dir: string, log: Log) {
    this.dir = dir;
    this.log = log;
    makeStateDir(dir, KEY);
  }

  /**
   * This agent's credential, made at its first start, and an epoch above every earlier one. Error: CONFIG_INVALID if
   * they cannot be read or written.
   */
  boot(clock: Clock, makeCredential: () => string): Identity {
    const known = this.readIdentity();
    const identity = {
      credential: known?.credential ?? makeCredential(),
      epoch: Math.max(clock.wallMs(), (known?.epoch ?? 0) + 1),
    };
    try {
      this.write(IDENTITY_FILE, Buffer.from(JSON.stringify(identity)));
    } catch (error) {
      throw stateDirError(this.dir, KEY, error);
    }
    return identity;
  }

  save(sealed: SealedTable, salt: string): void {
    try {
      this.write(TABLE_FILE, encode({ salt, sealed }));
    } catch (error) {
      this.log.warn({ error: errorMessage(error) }, 'the routing table could not be written to disk');
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

  /**
   * Replaces the file as a whole, so that a crash leaves the old one; on disk before it has the name, so that a power
   * cut does, too.
   */
  private write(name: string, bytes: Uint8Array): void {
    const path = join(this.dir, name);
    const file = openSync(`${path}.new`, 'w', 0o600);
    try {
      writeFileSync(file, bytes);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(`${path}.new`, path);
  }
}
