import type { LawState } from './predictor/step-law.ts';

export type Health = 'up' | 'starting' | 'down';

/**
 * Which of one entry's requests a report has counted: every sequence up to `upTo`, and `upTo + 2 + k` for each set bit
 * k of `later`.
 */
export interface EntrySeen {
  entry: string;
  epoch: number;
  upTo: number;
  later: number;
}

/** The door's own account of one instance. Tokens are the engine's; ratios are 0..1. */
export interface LedgerTotals {
  /** forwarded and not ended */
  inFlight: number;
  /** of those: not yet admitted by the engine (no room in its KV cache or batch) */
  waiting: number;
  /** admitted, first token not out */
  prefilling: number;
  decoding: number;
  /** uncached prompt tokens still to be computed, of waiting and prefilling requests */
  pendingTokens: number;
  /** of those: of requests that are waiting */
  waitingTokens: number;
  /** mean prompt length of the pending requests */
  pendingPromptTokens: number;
  /** context tokens of the decoding sequences, in sum */
  decodeContextTokens: number;
  /** tokens of KV blocks referenced by live requests, shared blocks once */
  usedTokens: number;
  /** ρ: prefill milliseconds admitted per millisecond, EWMA over 30 s, unclamped */
  workRatio: number;
  /** mean output tokens of finished requests, EWMA; 0 = none seen */
  meanOutputTokens: number;
  /** ms since the running step began, where it is one of decodes alone; −1: not known */
  stepAgeMs: number;
}

/** The engine's own gauges, scraped: stale by `ageMs`, and counting traffic that did not come through the door. */
export interface EngineGauges {
  running: number;
  waiting: number;
  kvUsageRatio: number;
  ageMs: number;
}

export interface GpuGauges {
  utilRatio: number;
  memUsedRatio: number;
  smClockRatio: number;
  powerRatio: number;
  temperatureC: number;
  ageMs: number;
}

export interface HostGauges {
  cpuRatio: number;
  memUsedRatio: number;
}

/**
 * Where a door's view of its engine's prefix cache comes from, the best first: KV events, the door's own block pool, a
 * guess of the cache's size.
 */
export const CACHE_SOURCES = ['events', 'shadow', 'estimate'] as const;
export type CacheSource = (typeof CACHE_SOURCES)[number];

/** The door's view of one prefix cache, in figures. */
export interface CacheFigures {
  source: CacheSource;
  /** why the source is none better; empty: it is the best that is configured */
  problem: string;
  /** prefix blocks (byte blocks of the fleet) that the view holds */
  blocks: number;
  /** engine blocks on a second tier (CPU, storage), as the events tell; 0 if they do not */
  offloadedBlocks: number;
  /** cached over all prompt tokens of answers that told them, EWMA; 0 = none told */
  hitRatio: number;
  /** share of those answers whose cached tokens the door predicted within one engine block, EWMA */
  accuracyRatio: number;
  /** answers that told their cached tokens */
  checked: number;
}

export interface InstanceLimits {
  kvTokens: number;
  blockTokens: number;
  maxNumSeqs: number;
  maxBatchedTokens: number;
  maxModelLen: number;
}

/** Everything a door says about one instance at one moment. */
export interface InstanceReport {
  instance: string;
  agent: string;
  /** URL of the door, where entries send requests for this instance */
  doorUrl: string;
  /** grows when the engine restarts, which clears its view and law */
  incarnation: number;
  /** the door's counter of reports of this instance; a higher one is newer */
  seq: number;
  /** ms between the moment described and the moment this copy was sent; each hop adds what it held it for */
  ageMs: number;
  health: Health;
  draining: boolean;
  /** names this instance answers to, LoRA adapters included */
  models: string[];
  /** model, quantisation, GPU × TP and engine version in one string: instances of a kind share priors */
  kind: string;
  limits: InstanceLimits;
  ledger: LedgerTotals;
  law: LawState;
  /** null: a door of an earlier version */
  cache: CacheFigures | null;
  engine: EngineGauges | null;
  gpu: GpuGauges | null;
  host: HostGauges | null;
  seen: EntrySeen[];
}

/** True if the report says that it has counted the request with this sequence number of that entry. */
export function hasSeen(seen: readonly EntrySeen[], entry: string, epoch: number, seq: number): boolean {
  for (const one of seen) {
    if (one.entry !== entry) continue;
    if (one.epoch !== epoch) return one.epoch > epoch;
    if (seq <= one.upTo) return true;
    const bit = seq - one.upTo - 2;
    return bit >= 0 && bit < 32 && ((one.later >>> bit) & 1) === 1;
  }
  return false;
}
