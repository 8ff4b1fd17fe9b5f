import { open, type Database, type RootDatabase, TransactionFlags } from 'lmdb';
import { z } from 'zod';
import { OBJECTIVE_NAMES } from '../shared/choice/objectives/index.ts';
import { POLICY_NAMES } from '../shared/choice/policies/index.ts';
import { decode, encode } from '../shared/codec.ts';
import { errorMessage, LodestarError } from '../shared/errors.ts';
import { FEATURE_SCHEMA } from '../shared/features.ts';
import { type Sample, sampleSchema } from '../shared/sample.ts';
import { makeStateDir } from '../shared/state-dir.ts';
import { ensureRoomToOpen, StoreRoom } from './store-room.ts';
import { MAX_TABLE_BYTES, openTable, type RoutingTable, type SealedTable, sealedTableSchema } from '../shared/table.ts';

const policySchema = z.object({ policy: z.enum(POLICY_NAMES), objective: z.enum(OBJECTIVE_NAMES) });
/** What the operator chose at run time, over the configuration. */
export type PolicyChoice = z.infer<typeof policySchema>;

const bindingSchema = z.object({ digest: z.string().length(64), lastSeenWallMs: z.number() });
/** Which secret an agent id belongs to. */
export type CredentialBinding = z.infer<typeof bindingSchema>;

/** Newest samples kept on disk; some 700 bytes each. */
const SAMPLES_MAX = 65_536;
const MAX_VALUE_BYTES = MAX_TABLE_BYTES;

/** A sample as stored: with the time at which the brain received it. */
export interface StoredSample {
  arrivedWallMs: number;
  sample: Sample;
}

/** Whether what the brain remembers is written to disk. */
export interface StoreStatus {
  ok: boolean;
  /** why not */
  problem: string | null;
  /** since when not, Unix ms */
  sinceWallMs: number | null;
}

/** What is stored. */
export type DiskStore = Pick<Store, keyof Store>;

/** What the brain uses of its store; simulations keep it in memory. Nothing in it throws. */
export type BrainStore = Omit<DiskStore, 'probe' | 'lastEpoch' | 'saveEpoch' | 'storedSalt' | 'saveSalt'> & {
  /** An epoch greater than that of every earlier start. */
  nextEpoch(wallMs: number): number;
  /** The fleet's salt, 32 bytes in hex, made at the first start. */
  salt(): string;
  status(): StoreStatus;
};

/**
 * Commits before it returns, and flushes in the background: an error is thrown at once, and never lost in a promise of
 * LMDB's own.
 */
const COMMIT_NOW: TransactionFlags = TransactionFlags.SYNCHRONOUS_COMMIT | TransactionFlags.NO_SYNC_FLUSH;
/** Bytes of samples that go into one transaction, about. */
const BATCH_BYTES = 1_048_576;
/** What a credential, a choice or a number takes. */
const SMALL_BYTES = 4096;
/** Samples that one transaction removes. */
const PRUNED_AT_ONCE = 4096;

/**
 * The brain's LMDB file, whose writes throw what LMDB says; KeptStore goes on where they fail. What must survive a
 * restart: the last table (it carries the champion net), samples, credentials, the operator's choice of policy, version
 * counters and the fleet's salt. Values that no longer fit their schema are ignored, as if they had never been stored.
 */
export class Store {
  private readonly root: RootDatabase<Buffer, string>;
  private readonly credentials: Database<Buffer, string>;
  private readonly samples: Database<Buffer, number>;
  private sampleKey: number;
  private readonly room: StoreRoom;
  /** of the largest write that found no room since one did */
  private wantedBytes = SMALL_BYTES;
  private waiting: { samples: readonly Sample[]; arrivedWallMs: number }[] = [];
  private written: Promise<void> | undefined;
  /** what the samples' feature rows mean is what this version means by them */
  private isCurrent: boolean;

  /**
   * Opens or creates the store in a folder. Errors: CONFIG_INVALID if the folder cannot be written, STORE_FAILED if
   * what it holds cannot be opened.
   */
  constructor(dir: string) {
    makeStateDir(dir, 'brain.stateDir');
    this.room = new StoreRoom(dir);
    try {
      ensureRoomToOpen(dir);
      this.root = open<Buffer, string>({ path: dir, encoding: 'binary', maxDbs: 4 });
      this.credentials = this.root.openDB<Buffer, string>({ name: 'credentials', encoding: 'binary' });
      this.samples = this.root.openDB<Buffer, number>({ name: 'samples', encoding: 'binary' });
    } catch (error) {
      throw new LodestarError(
        'STORE_FAILED',
        `cannot open the store in ${dir}: ${errorMessage(error)}; set brain.stateDir to a folder that can be written`,
        { cause: error },
      );
    }
    this.isCurrent = this.read('featureSchema', z.number()) === FEATURE_SCHEMA;
    this.sampleKey = ([...this.samples.getKeys({ reverse: true, limit: 1 })][0] ?? 0) + 1;
  }

  /** The last published table; null if there is none or it is corrupt. */
  lastTable(): { sealed: SealedTable; table: RoutingTable } | null {
    const sealed = this.read('table', sealedTableSchema);
    if (!sealed) return null;
    try {
      return { sealed, table: openTable(sealed) };
    } catch {
      return null;
    }
  }

  /** Written before the table is sent, so that a version is never used twice. */
  saveTable(sealed: SealedTable, version: number): void {
    const table = encode(sealed);
    this.write(table.length, () => {
      this.root.putSync('table', table);
      this.root.putSync('tableVersion', encode(version));
    });
  }

  lastVersion(): number {
    return this.read('tableVersion', z.number().int().nonnegative()) ?? 0;
  }

  /** That of the last start; 0 before any. */
  lastEpoch(): number {
    return this.read('epoch', z.number()) ?? 0;
  }

  saveEpoch(epoch: number): void {
    this.write(SMALL_BYTES, () => this.root.putSync('epoch', encode(epoch)));
  }

  /** The fleet's salt, 32 bytes in hex; null before the first start. */
  storedSalt(): string | null {
    return this.read('salt', z.string().length(64));
  }

  saveSalt(salt: string): void {
    this.write(SMALL_BYTES, () => this.root.putSync('salt', encode(salt)));
  }

  policy(): PolicyChoice | null {
    return this.read('policy', policySchema);
  }

  savePolicy(choice: PolicyChoice): void {
    this.write(SMALL_BYTES, () => this.root.putSync('policy', encode(choice)));
  }

  binding(agent: string): CredentialBinding | null {
    return parsed(this.credentials.get(agent), bindingSchema);
  }

  saveBinding(agent: string, binding: CredentialBinding): void {
    this.write(SMALL_BYTES, () => this.credentials.putSync(agent, encode(binding)));
  }

  /**
   * Resolves once the samples are in the store; those of one turn of the event loop go together. Rejects with LMDB's
   * error.
   */
  appendSamples(samples: readonly Sample[], arrivedWallMs: number): Promise<void> {
    if (samples.length === 0) return Promise.resolve();
    this.waiting.push({ samples, arrivedWallMs });
    this.written ??= new Promise<void>((resolve) => setImmediate(resolve)).then(() => this.writeWaiting());
    return this.written;
  }

  /** Samples received since `sinceWallMs`, in order of arrival. */
  *samplesSince(sinceWallMs: number): Generator<StoredSample> {
    const schema = z.object({ arrivedWallMs: z.number(), sample: sampleSchema });
    if (!this.isCurrent) return;
    for (const { value } of this.samples.getRange({})) {
      const stored = parsed(value, schema);
      if (stored && stored.arrivedWallMs >= sinceWallMs) yield stored;
    }
  }

  /**
   * Removes samples that arrived before `beforeWallMs`, and the oldest beyond the bound, some at a time. Rejects with
   * LMDB's error.
   */
  async pruneSamples(beforeWallMs: number): Promise<void> {
    const arrival = z.object({ arrivedWallMs: z.number() });
    const floor = this.sampleKey - SAMPLES_MAX;
    for (let removed = PRUNED_AT_ONCE; removed === PRUNED_AT_ONCE;) {
      removed = 0;
      this.write(SMALL_BYTES, () => {
        const old: number[] = [];
        for (const { key, value } of this.samples.getRange({ limit: PRUNED_AT_ONCE })) {
          const stored = parsed(value, arrival);
          if (key >= floor && stored && stored.arrivedWallMs >= beforeWallMs) break;
          old.push(key);
        }
        for (const key of old) this.samples.removeSync(key);
        removed = old.length;
      });
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Throws while there is no room for what found none before. */
  probe(): void {
    this.ensureRoom(this.wantedBytes);
  }

  /** Flushes and closes. */
  async close(): Promise<void> {
    const usedBytes = this.usedBytes();
    await this.root.flushed;
    await this.root.close();
    this.room.release(usedBytes);
  }

  private writeWaiting(): void {
    const values = this.waiting.flatMap(({ samples, arrivedWallMs }) =>
      samples.map((sample) => encode({ arrivedWallMs, sample })),
    );
    this.waiting = [];
    this.written = undefined;
    this.forgetOutdated();
    for (let from = 0; from < values.length;) {
      let bytes = 0;
      let end = from;
      while (end < values.length && bytes < BATCH_BYTES) bytes += (values[end++] as Buffer).length;
      const batch = values.slice(from, end);
      this.write(bytes, () => {
        for (const value of batch) this.samples.putSync(this.sampleKey++, value);
      });
      from = end;
    }
  }

  /** Samples of another version's feature rows mean something else. */
  private forgetOutdated(): void {
    if (this.isCurrent) return;
    this.write(SMALL_BYTES, () => {
      for (const key of Array.from(this.samples.getKeys())) this.samples.removeSync(key);
      this.root.putSync('featureSchema', encode(FEATURE_SCHEMA));
    });
    this.isCurrent = true;
  }

  /** A transaction that puts `bytes`, about. Throws the disk's error before LMDB would meet it, and LMDB's own. */
  private write(bytes: number, work: () => void): void {
    this.ensureRoom(bytes);
    this.root.transactionSync(work, COMMIT_NOW);
    this.wantedBytes = SMALL_BYTES;
  }

  private usedBytes(): number {
    const { lastPageNumber, pageSize } = this.root.getStats() as { lastPageNumber: number; pageSize: number };
    return (lastPageNumber + 1) * pageSize;
  }

  private ensureRoom(bytes: number): void {
    try {
      this.room.ensure(this.usedBytes(), bytes);
    } catch (error) {
      this.wantedBytes = Math.max(this.wantedBytes, bytes);
      throw error;
    }
  }

  private read<T>(key: string, schema: z.ZodType<T>): T | null {
    return parsed(this.root.get(key), schema);
  }
}

function parsed<T>(bytes: Buffer | undefined, schema: z.ZodType<T>): T | null {
  if (!bytes) return null;
  try {
    const result = schema.safeParse(decode(bytes, MAX_VALUE_BYTES));
    return result.success ? result.data : null;
  } catch {
    return null;
  }
}
