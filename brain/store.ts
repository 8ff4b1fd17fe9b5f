import { randomBytes } from 'node:crypto';
import { open, type Database, type RootDatabase } from 'lmdb';
import { z } from 'zod';
import { OBJECTIVE_NAMES } from '../shared/choice/objectives/index.ts';
import { POLICY_NAMES } from '../shared/choice/policies/index.ts';
import { decode, encode } from '../shared/codec.ts';
import { errorMessage, LodestarError } from '../shared/errors.ts';
import { FEATURE_SCHEMA } from '../shared/features.ts';
import { type Sample, sampleSchema } from '../shared/sample.ts';
import { makeStateDir } from '../shared/state-dir.ts';
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

/** What the brain uses of its store; simulations keep it in memory. */
export type BrainStore = Pick<Store, keyof Store>;

/**
 * What must survive a restart, in LMDB: the last table (it carries the champion net), samples, credentials, the
 * operator's choice of policy, version counters and the fleet's salt. Values that no longer fit their schema are
 * ignored, as if they had never been stored.
 */
export class Store {
  private readonly root: RootDatabase<Buffer, string>;
  private readonly credentials: Database<Buffer, string>;
  private readonly samples: Database<Buffer, number>;
  private sampleKey: number;

  /**
   * Opens or creates the store in a folder. Errors: CONFIG_INVALID if the folder cannot be written, STORE_FAILED if
   * what it holds cannot be opened.
   */
  constructor(dir: string) {
    makeStateDir(dir, 'brain.stateDir');
    try {
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
    if (this.read('featureSchema', z.number()) !== FEATURE_SCHEMA) {
      this.samples.clearSync();
      this.root.putSync('featureSchema', encode(FEATURE_SCHEMA));
    }
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
    this.root.transactionSync(() => {
      this.root.putSync('table', encode(sealed));
      this.root.putSync('tableVersion', encode(version));
    });
  }

  lastVersion(): number {
    return this.read('tableVersion', z.number().int().nonnegative()) ?? 0;
  }

  /** An epoch greater than that of every earlier start. */
  nextEpoch(wallMs: number): number {
    const epoch = Math.max(Math.floor(wallMs), (this.read('epoch', z.number()) ?? 0) + 1);
    this.root.putSync('epoch', encode(epoch));
    return epoch;
  }

  /** The fleet's salt, 32 bytes in hex, made at the first start. */
  salt(): string {
    const known = this.read('salt', z.string().length(64));
    if (known) return known;
    const salt = randomBytes(32).toString('hex');
    this.root.putSync('salt', encode(salt));
    return salt;
  }

  policy(): PolicyChoice | null {
    return this.read('policy', policySchema);
  }

  savePolicy(choice: PolicyChoice): void {
    this.root.putSync('policy', encode(choice));
  }

  binding(agent: string): CredentialBinding | null {
    return parsed(this.credentials.get(agent), bindingSchema);
  }

  saveBinding(agent: string, binding: CredentialBinding): void {
    this.credentials.putSync(agent, encode(binding));
  }

  /** Resolves once the samples are on disk. */
  async appendSamples(samples: readonly Sample[], arrivedWallMs: number): Promise<void> {
    if (samples.length === 0) return;
    await this.samples.transaction(() => {
      for (const sample of samples) void this.samples.put(this.sampleKey++, encode({ arrivedWallMs, sample }));
    });
  }

  /** Samples received since `sinceWallMs`, in order of arrival. */
  *samplesSince(sinceWallMs: number): Generator<StoredSample> {
    const schema = z.object({ arrivedWallMs: z.number(), sample: sampleSchema });
    for (const { value } of this.samples.getRange({})) {
      const stored = parsed(value, schema);
      if (stored && stored.arrivedWallMs >= sinceWallMs) yield stored;
    }
  }

  /** Removes samples that arrived before `beforeWallMs`, and the oldest beyond the bound. */
  async pruneSamples(beforeWallMs: number): Promise<void> {
    const arrival = z.object({ arrivedWallMs: z.number() });
    const floor = this.sampleKey - SAMPLES_MAX;
    await this.samples.transaction(() => {
      for (const { key, value } of this.samples.getRange({})) {
        const stored = parsed(value, arrival);
        if (key >= floor && stored && stored.arrivedWallMs >= beforeWallMs) break;
        void this.samples.remove(key);
      }
    });
  }

  /** Flushes and closes. */
  async close(): Promise<void> {
    await this.root.flushed;
    await this.root.close();
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
