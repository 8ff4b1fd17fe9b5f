import { median } from './quantile.ts';
import { REGIMES, type Regime } from './sample.ts';
import type { Trust } from './table.ts';

export interface TrustLimits {
  /** outcomes needed before any trust */
  minSamples: number;
  /** median absolute percentage error of TTFT up to which predictions are trusted */
  maxMedianApe: number;
}

/** Outcomes remembered; older ones leave by count or by age, so that a verdict is always about the present. */
const WINDOW = 256;
const MAX_AGE_MS = 180_000;
/** Trust is lost only clearly beyond the limit, so that the fleet does not flap between policies. */
const HYSTERESIS = 1.5;
const REGIME_MIN_SAMPLES = 12;
/** Newest outcomes that decide whether trust is lost: drift must show before the whole window has turned over. */
const RECENT = 48;

/** A prediction off by more than this factor is wild; the median does not see wild ones while they are few. */
const WILD_FACTOR = 5;
/** Newest outcomes among which wild ones are counted: a short burst of them is no drift. */
const WILD_RECENT = 96;
/**
 * Share of wild ones among those at which trust is lost, and under which it comes back: one instance or one witness of
 * several is astray.
 */
const WILD_LOST = 0.25;
const WILD_REGAINED = 0.1;

interface Entry {
  atMs: number;
  ape: number;
  isWild: boolean;
  covered: boolean;
  regime: Regime;
}

/**
 * Decides on live outcomes whether predictions may route. Kept by the brain over the fleet and by every entry over its
 * own requests, since the brain may be dead. Each outcome must have been predicted before it was learned from.
 */
export class TrustGate {
  private readonly limits: TrustLimits;
  private entries: Entry[] = [];
  private state: Trust['verdict'];

  constructor(limits: TrustLimits, startTrusted = false) {
    this.limits = limits;
    this.state = startTrusted ? 'trusted' : 'learning';
  }

  note(predictedMs: number, p90Ms: number, observedMs: number, regime: Regime, nowMs: number): void {
    const ape = Math.abs(predictedMs - observedMs) / Math.max(1, observedMs);
    const ratio = Math.max(1, predictedMs) / Math.max(1, observedMs);
    const isWild = !(ratio <= WILD_FACTOR && ratio >= 1 / WILD_FACTOR);
    this.entries.push({
      atMs: nowMs,
      ape: Number.isFinite(ape) ? ape : Infinity,
      isWild,
      covered: observedMs <= p90Ms,
      regime,
    });
    if (this.entries.length > WINDOW) this.entries.shift();
  }

  /** Forgets every outcome: the fleet or the predictor is no longer the one that they speak of. */
  reset(): void {
    this.entries = [];
    this.state = 'learning';
  }

  verdict(nowMs: number): Trust {
    const live = this.entries.filter((entry) => nowMs - entry.atMs <= MAX_AGE_MS);
    this.entries = live;
    const apes = live.map((entry) => entry.ape);
    const medianApe = median(apes);
    const newest = live.slice(-WILD_RECENT);
    const reason = this.judge(
      apes,
      medianApe,
      newest.filter((entry) => entry.isWild).length / Math.max(1, newest.length),
    );
    return {
      verdict: this.state,
      reason,
      samples: live.length,
      medianApe: medianApe !== null && Number.isFinite(medianApe) ? medianApe : null,
      p90Coverage: live.length > 0 ? live.filter((entry) => entry.covered).length / live.length : null,
      regimes: Object.fromEntries(
        REGIMES.map((regime) => [regime, this.regimeVerdict(live, regime)]),
      ) as Trust['regimes'],
    };
  }

  private judge(apes: number[], medianApe: number | null, wildShare: number): string {
    const { minSamples, maxMedianApe } = this.limits;
    const recent = median(apes.slice(-RECENT));
    const enough = apes.length >= (this.state === 'trusted' ? Math.min(minSamples, RECENT / 2) : minSamples);
    if (!enough || recent === null || medianApe === null) {
      return this.state === 'trusted'
        ? 'trusted, no recent outcome'
        : `learning: ${apes.length} of ${minSamples} outcomes`;
    }
    if (this.state !== 'untrusted' && recent > maxMedianApe * HYSTERESIS) {
      this.state = 'untrusted';
      return `drift: recent median error ${percent(recent)} > ${percent(maxMedianApe * HYSTERESIS)}`;
    }
    if (this.state !== 'untrusted' && wildShare >= WILD_LOST) {
      this.state = 'untrusted';
      return `drift: ${percent(wildShare)} of recent predictions off by more than ${WILD_FACTOR} times`;
    }
    if (this.state === 'trusted') return `median error ${percent(medianApe)}`;
    if (medianApe > maxMedianApe || recent > maxMedianApe)
      return `median error ${percent(Math.max(medianApe, recent))} > ${percent(maxMedianApe)}`;
    if (this.state === 'untrusted' && wildShare > WILD_REGAINED)
      return `${percent(wildShare)} of recent predictions off by more than ${WILD_FACTOR} times`;
    this.state = 'trusted';
    return `median error ${percent(medianApe)}`;
  }

  private regimeVerdict(live: readonly Entry[], regime: Regime): 'trusted' | 'untrusted' | 'unknown' {
    const apes = live.filter((entry) => entry.regime === regime).map((entry) => entry.ape);
    if (apes.length < REGIME_MIN_SAMPLES) return 'unknown';
    return (median(apes) ?? Infinity) <= this.limits.maxMedianApe * HYSTERESIS ? 'trusted' : 'untrusted';
  }
}

function percent(ratio: number): string {
  return `${Math.round(ratio * 100)} %`;
}
