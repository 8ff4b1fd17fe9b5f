import { randomBytes } from 'node:crypto';
import type { Env, Timer } from '../shared/env.ts';
import { errorMessage } from '../shared/errors.ts';
import type { Sample } from '../shared/sample.ts';
import { isNoRoom, makeStateDir } from '../shared/state-dir.ts';
import type { SealedTable } from '../shared/table.ts';
import type { Counters } from './counters.ts';
import { isDamage, setAside, setDamagedAside } from './store-check.ts';
import {
  type BrainStore,
  type CredentialBinding,
  type DiskStore,
  type PolicyChoice,
  Store,
  type StoredSample,
  type StoreStatus,
} from './store.ts';

/** Pause before a store that could not be written is tried again. */
export const TRY_AGAIN_MS = 5_000;
/** Credentials remembered that are not on disk. */
const BINDINGS_MAX = 4096;

/** What has to outlast a restart beside samples and credentials. */
interface Kept {
  epoch: number;
  salt: string;
  policy: PolicyChoice;
  table: { sealed: SealedTable; version: number };
}

/** Where a store lies. */
export interface StorePlace {
  /** Opens the store. Undefined: there is no room for one now. Throws what an operator must mend. */
  open(): DiskStore | undefined;
  /** True for an error that is due to what is stored. */
  isDamage(error: unknown): boolean;
  /** Takes a damaged store out of the way, so that `open` makes another. */
  setAside(why: string): void;
}

/**
 * The brain's store, whose disk may be full, fail or be damaged: then the brain goes on in memory and tries to write
 * again every five seconds. What has to outlast a restart waits here for it, the newest of each; samples do not: they
 * have been learned from. Nothing here throws.
 */
export class KeptStore implements BrainStore {
  private readonly place: StorePlace;
  private readonly env: Pick<Env, 'clock' | 'log'>;
  private readonly counters: Counters;
  /** as it was last set; what is not here is as the disk says */
  private readonly kept: Partial<Kept> = {};
  /** what of it is not on disk yet */
  private readonly unsaved = new Set<keyof Kept>();
  private readonly bindings = new Map<string, CredentialBinding>();
  private readonly timer: Timer;
  private disk: DiskStore | undefined;
  private trying = false;
  private problem: { text: string; sinceWallMs: number; damaged: boolean } | undefined;

  /** Errors: those of `place.open`. */
  constructor(place: StorePlace, env: Pick<Env, 'clock' | 'log'>, counters: Counters) {
    this.place = place;
    this.env = env;
    this.counters = counters;
    this.disk = place.open();
    if (!this.disk) this.failed('there is no room for a store', false);
    this.timer = env.clock.every(TRY_AGAIN_MS, () => void this.tryAgain());
  }

  lastTable(): ReturnType<BrainStore['lastTable']> {
    return this.read((disk) => disk.lastTable()) ?? null;
  }

  saveTable(sealed: SealedTable, version: number): void {
    this.set('table', { sealed, version });
  }

  lastVersion(): number {
    return this.kept.table?.version ?? this.read((disk) => disk.lastVersion()) ?? 0;
  }

  nextEpoch(wallMs: number): number {
    const epoch = Math.max(Math.floor(wallMs), (this.kept.epoch ?? this.read((disk) => disk.lastEpoch()) ?? 0) + 1);
    this.set('epoch', epoch);
    return epoch;
  }

  salt(): string {
    const known = this.kept.salt ?? this.read((disk) => disk.storedSalt());
    if (known) return (this.kept.salt = known);
    const salt = randomBytes(32).toString('hex');
    this.set('salt', salt);
    return salt;
  }

  policy(): PolicyChoice | null {
    return this.kept.policy ?? this.read((disk) => disk.policy()) ?? null;
  }

  savePolicy(choice: PolicyChoice): void {
    this.set('policy', choice);
  }

  binding(agent: string): CredentialBinding | null {
    return this.bindings.get(agent) ?? this.read((disk) => disk.binding(agent)) ?? null;
  }

  saveBinding(agent: string, binding: CredentialBinding): void {
    const { bindings } = this;
    bindings.set(agent, binding);
    if (bindings.size > BINDINGS_MAX) bindings.delete(bindings.keys().next().value as string);
    this.write();
  }

  async appendSamples(samples: readonly Sample[], arrivedWallMs: number): Promise<void> {
    const { disk } = this;
    if (disk && !this.problem) {
      try {
        return await disk.appendSamples(samples, arrivedWallMs);
      } catch (error) {
        this.writeFailed(error);
      }
    }
    this.counters.samplesNotStored += samples.length;
  }

  *samplesSince(sinceWallMs: number): Generator<StoredSample> {
    if (this.disk) yield* this.disk.samplesSince(sinceWallMs);
  }

  async pruneSamples(beforeWallMs: number): Promise<void> {
    if (!this.disk || this.problem) return;
    try {
      await this.disk.pruneSamples(beforeWallMs);
    } catch (error) {
      this.writeFailed(error);
    }
  }

  status(): StoreStatus {
    return { ok: !this.problem, problem: this.problem?.text ?? null, sinceWallMs: this.problem?.sinceWallMs ?? null };
  }

  async close(): Promise<void> {
    this.timer.cancel();
    await this.tryAgain();
    try {
      await this.disk?.close();
    } catch (error) {
      this.writeFailed(error);
    }
  }

  private set<K extends keyof Kept>(name: K, value: Kept[K]): void {
    this.kept[name] = value;
    this.unsaved.add(name);
    this.write();
  }

  private read<T>(get: (disk: DiskStore) => T): T | undefined {
    try {
      return this.disk && get(this.disk);
    } catch (error) {
      this.failed(errorMessage(error), this.place.isDamage(error));
      return undefined;
    }
  }

  /** Writes what is unsaved; while the disk fails, that is left to the timer. */
  private write(): void {
    if (this.problem || !this.disk) return;
    try {
      this.save(this.disk);
    } catch (error) {
      this.writeFailed(error);
    }
  }

  private save(disk: DiskStore): void {
    const { epoch, salt, policy, table } = this.kept;
    if (this.unsaved.has('epoch') && epoch !== undefined) disk.saveEpoch(epoch);
    if (this.unsaved.has('salt') && salt !== undefined) disk.saveSalt(salt);
    if (this.unsaved.has('policy') && policy) disk.savePolicy(policy);
    if (this.unsaved.has('table') && table) disk.saveTable(table.sealed, table.version);
    this.unsaved.clear();
    for (const [agent, binding] of this.bindings) {
      disk.saveBinding(agent, binding);
      this.bindings.delete(agent);
    }
  }

  private async tryAgain(): Promise<void> {
    if (!this.problem || this.trying) return;
    this.trying = true;
    try {
      if (this.problem.damaged) await this.replace(this.problem.text);
      this.disk ??= this.place.open();
      if (this.disk) this.recover(this.disk);
    } catch (error) {
      this.writeFailed(error);
    } finally {
      this.trying = false;
    }
  }

  private recover(disk: DiskStore): void {
    disk.probe();
    this.save(disk);
    const failedForMs = this.env.clock.wallMs() - (this.problem?.sinceWallMs ?? 0);
    this.problem = undefined;
    this.env.log.info({ failedForMs }, 'the store can be written again');
  }

  /** LMDB finds what cannot be in its file: another one takes its place, and gets what is known. */
  private async replace(why: string): Promise<void> {
    const { disk } = this;
    this.disk = undefined;
    await disk?.close().catch(() => undefined);
    this.place.setAside(why);
    if (this.problem) this.problem.damaged = false;
    for (const name of Object.keys(this.kept) as (keyof Kept)[]) this.unsaved.add(name);
  }

  private writeFailed(error: unknown): void {
    this.counters.storeFailures += 1;
    this.failed(errorMessage(error), this.place.isDamage(error));
  }

  private failed(text: string, damaged: boolean): void {
    if (this.problem) {
      this.problem.damaged ||= damaged;
      return;
    }
    this.problem = { text, sinceWallMs: this.env.clock.wallMs(), damaged };
    this.env.log.error(
      { problem: text },
      'the store cannot be written: the brain learns and routes on in memory, and tries again every 5 s',
    );
  }
}

/**
 * The store of a state folder. Errors: CONFIG_INVALID if the folder cannot be used, STORE_FAILED if what it holds
 * cannot be opened.
 */
export function keptStoreIn(dir: string, env: Pick<Env, 'clock' | 'log'>, counters: Counters): KeptStore {
  const { clock, log } = env;
  const place: StorePlace = {
    open() {
      try {
        makeStateDir(dir, 'brain.stateDir');
        setDamagedAside(dir, clock.wallMs(), log);
        return new Store(dir);
      } catch (error) {
        if (isNoRoom(error)) return undefined;
        throw error;
      }
    },
    isDamage,
    setAside: (why) => setAside(dir, why, clock.wallMs(), log),
  };
  return new KeptStore(place, env, counters);
}
