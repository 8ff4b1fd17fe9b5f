import type { Env } from '../../shared/env.ts';
import { errorMessage } from '../../shared/errors.ts';
import type { CacheView } from './cache/cache-view.ts';

/** The view of a prefix cache, as ledger and telemetry use it. */
export type DoorCache = Pick<CacheView, keyof CacheView>;

type Of<K extends keyof DoorCache> = DoorCache[K] extends (...args: infer A) => infer R ? (...args: A) => R : never;
type Look = ReturnType<Of<'look'>>;
type Sequence = ReturnType<Of<'admit'>>;

/** A fault that comes back is said again after this long; for as long it shows in the status. */
const SAY_MS = 600_000;
/** A view that fails is emptied at most this often. */
const CLEAR_MS = 10_000;

/**
 * Stands between a door and its account of the engine's cache, which only refines what is expected of a request: where
 * the account throws, the request goes on with nothing known of the cache, the fault is said, and the account begins
 * anew, empty.
 */
export class GuardedCache implements DoorCache {
  private readonly view: CacheView;
  private readonly env: Pick<Env, 'clock' | 'log'>;
  private readonly instance: string;
  private readonly onCleared: () => void;
  /** what went wrong last, and when */
  private fault = { text: '', atMs: -Infinity };
  private saidMs = -Infinity;
  private clearedMs = -Infinity;

  /** `onCleared`: the account is empty again, so its events must be told from their beginning. */
  constructor(view: CacheView, env: Pick<Env, 'clock' | 'log'>, instance: string, onCleared: () => void) {
    this.view = view;
    this.env = env;
    this.instance = instance;
    this.onCleared = onCleared;
  }

  /** Where events go. It throws, and who calls it deals with that: a stream that failed half way must begin anew. */
  get events(): DoorCache['events'] {
    return this.view.events;
  }

  get usedTokens(): number {
    try {
      return this.view.usedTokens;
    } catch (error) {
      this.failed(error);
      return 0;
    }
  }

  get blockCount(): number {
    return this.attempt(
      () => this.view.blockCount,
      () => 0,
    );
  }

  get hasDelta(): boolean {
    return this.attempt(
      () => this.view.hasDelta,
      () => false,
    );
  }

  look(...args: Parameters<Of<'look'>>): Look {
    try {
      return this.view.look(...args);
    } catch (error) {
      this.failed(error);
      return unknownLook(args[0]);
    }
  }

  claimTokens(...args: Parameters<Of<'claimTokens'>>): number {
    return this.attempt(
      () => this.view.claimTokens(...args),
      () => args.at(-1) as number,
    );
  }

  admit(...args: Parameters<Of<'admit'>>): Sequence {
    // The view does not know it, and takes no notice of what becomes of it.
    return this.attempt(
      () => this.view.admit(...args),
      () => ({ prompt: args[0], ends: args[1].ends, promptTokens: args[1].promptTokens }) as Sequence,
    );
  }

  grow(sequence: Sequence, tokens: number): boolean {
    try {
      return this.view.grow(sequence, tokens);
    } catch (error) {
      this.failed(error);
      return true;
    }
  }

  preempt(...args: Parameters<Of<'preempt'>>): void {
    this.attempt(() => this.view.preempt(...args), nothing);
  }

  cancel(...args: Parameters<Of<'cancel'>>): void {
    this.attempt(() => this.view.cancel(...args), nothing);
  }

  finish(...args: Parameters<Of<'finish'>>): void {
    this.attempt(() => this.view.finish(...args), nothing);
  }

  setEventsLive(live: boolean): void {
    this.attempt(() => this.view.setEventsLive(live), nothing);
  }

  setSize(kvTokens: number, blockTokens: number): void {
    this.attempt(() => this.view.setSize(kvTokens, blockTokens), nothing);
  }

  setCaching(enabled: boolean): void {
    this.attempt(() => this.view.setCaching(enabled), nothing);
  }

  resetCached(): void {
    this.attempt(() => this.view.resetCached(), nothing);
  }

  clear(): void {
    this.attempt(() => this.view.clear(), nothing);
  }

  requestReset(): void {
    this.attempt(() => this.view.requestReset(), nothing);
  }

  drainDelta(): ReturnType<Of<'drainDelta'>> {
    return this.attempt(
      () => this.view.drainDelta(),
      () => ({ reset: true, add: [], tokens: [], remove: [] }),
    );
  }

  figures(): ReturnType<Of<'figures'>> {
    const figures = this.attempt(
      () => this.view.figures(),
      () => ({
        source: 'estimate' as const,
        problem: '',
        blocks: 0,
        offloadedBlocks: 0,
        hitRatio: 0,
        accuracyRatio: 0,
        checked: 0,
      }),
    );
    const isRecent = this.env.clock.nowMs() - this.fault.atMs < SAY_MS;
    return isRecent ? { ...figures, problem: this.fault.text } : figures;
  }

  private attempt<T>(work: () => T, otherwise: () => T): T {
    try {
      return work();
    } catch (error) {
      this.failed(error);
      return otherwise();
    }
  }

  private failed(error: unknown): void {
    const { clock, log } = this.env;
    const nowMs = clock.nowMs();
    this.fault = {
      text: `the account of the cache failed and began anew (${errorMessage(error)}); see the log`,
      atMs: nowMs,
    };
    if (nowMs - this.saidMs >= SAY_MS) {
      this.saidMs = nowMs;
      log.error(
        { instance: this.instance, err: error },
        'the account of the cache failed: it begins anew, and requests go on',
      );
    }
    if (nowMs - this.clearedMs < CLEAR_MS) return;
    this.clearedMs = nowMs;
    try {
      this.view.clear();
      this.onCleared();
    } catch (again) {
      log.error({ instance: this.instance, err: again }, 'the account of the cache could not be emptied');
    }
  }
}

function nothing(): void {}

/** A prompt of which nothing is known to be cached, its tokens as the request says. */
function unknownLook({ hashes, tokensPerBlock, promptTokens }: Parameters<Of<'look'>>[0]): Look {
  const ends = Float64Array.from({ length: hashes.length + 1 }, (_, k) =>
    k < hashes.length ? Math.min(promptTokens, (k + 1) * tokensPerBlock) : promptTokens,
  );
  return { promptTokens: Math.max(1, promptTokens), ends, nodes: [], hit: undefined, hitTokens: 0 } as Look;
}
