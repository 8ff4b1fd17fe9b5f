import type { Residuals } from './predictor/forecast.ts';

/** Live outcomes on which a challenger must have been compared before anything is decided. */
export const PAIRS_MIN = 32;
/** Without a decision by then it is no better. */
export const PAIRS_MAX = 128;
/** Gain in mean absolute log error, TTFT and TPOT together, under which a new net is not worth a new table. */
const GAIN_MIN = 0.005;
/** Standard errors by which a difference must stand out. */
const STANDARD_ERRORS = 2;
const WATCH_PAIRS = 128;
const WATCH_MIN = 48;

export interface Observed {
  /** log(observed / prior); NaN where it was not observed */
  ttft: number;
  tpot: number;
}

/** |log(predicted / observed)| of TTFT plus that of TPOT, over what was observed. */
export function logError(predicted: Residuals, observed: Observed): number {
  const ttft = Number.isNaN(observed.ttft) ? 0 : Math.abs(predicted.ttft - observed.ttft);
  const tpot = Number.isNaN(observed.tpot) ? 0 : Math.abs(predicted.tpot - observed.tpot);
  return ttft + tpot;
}

/** Error of the prior itself. */
export function priorError(observed: Observed): number {
  return logError({ ttft: 0, ttftP90: 0, tpot: 0, tpotP90: 0 }, observed);
}

/** Running mean of gains and whether it stands out from chance. */
class Gain {
  n = 0;
  mean = 0;
  private squares = 0;

  note(gain: number): void {
    this.n += 1;
    const before = gain - this.mean;
    this.mean += before / this.n;
    this.squares += before * (gain - this.mean);
  }

  get isReal(): boolean {
    const standardError = Math.sqrt(this.squares / (this.n - 1) / this.n);
    return this.mean > Math.max(GAIN_MIN, STANDARD_ERRORS * standardError);
  }
}

/** Errors of a net and of the prior alone on the same outcome. */
export interface WatchedPair {
  champion: number;
  prior: number;
}

/**
 * Progressive validation of a challenger: both nets predict each outcome before either learns from it, in the order in
 * which outcomes arrive. The challenger wins only if it is better than the net in force and than the prior alone by
 * more than chance explains; so a round never replaces a better predictor, and a row of nets that are each a little
 * better than the last cannot hide that all are worse than none.
 */
export class PairedTrial {
  private readonly overChampion = new Gain();
  private readonly overPrior = new Gain();
  private readonly seen: WatchedPair[] = [];

  note(errors: { champion: number; challenger: number; prior: number }): void {
    this.overChampion.note(errors.champion - errors.challenger);
    this.overPrior.note(errors.prior - errors.challenger);
    this.seen.push({ champion: errors.challenger, prior: errors.prior });
  }

  verdict(): 'accept' | 'reject' | 'undecided' {
    const gains = [this.overChampion, this.overPrior];
    const { n } = this.overChampion;
    if (n < PAIRS_MIN) return 'undecided';
    if (gains.every((gain) => gain.isReal)) return 'accept';
    return gains.some((gain) => gain.mean <= 0) || n >= PAIRS_MAX ? 'reject' : 'undecided';
  }

  summary(): { pairs: number; gain: number } {
    return { pairs: this.overChampion.n, gain: this.overChampion.mean };
  }

  /** What the challenger said of the outcomes of its trial, for the watch over it once it is in force. */
  pairs(): readonly WatchedPair[] {
    return this.seen;
  }
}

/** Watches the net in force against the prior on the last outcomes: a net that drifts below it must go. */
export class ChampionWatch {
  private pairs: WatchedPair[] = [];

  note(championError: number, priorErrorValue: number): void {
    this.pairs.push({ champion: championError, prior: priorErrorValue });
    if (this.pairs.length > WATCH_PAIRS) this.pairs.shift();
  }

  /** Another net is in force: `pairs` are its own and the prior's errors on the outcomes that it was judged by. */
  reset(pairs: readonly WatchedPair[]): void {
    this.pairs = pairs.slice(-WATCH_PAIRS);
  }

  /** Mean errors over the last outcomes; null before the first. */
  errors(): { champion: number; prior: number } | null {
    const n = this.pairs.length;
    if (n === 0) return null;
    const sums = this.pairs.reduce((sum, pair) => ({
      champion: sum.champion + pair.champion,
      prior: sum.prior + pair.prior,
    }));
    return { champion: sums.champion / n, prior: sums.prior / n };
  }

  worseThanPrior(): boolean {
    const n = this.pairs.length;
    if (n < WATCH_MIN) return false;
    const losses = this.pairs.map(({ champion, prior }) => champion - prior);
    const mean = losses.reduce((sum, loss) => sum + loss, 0) / n;
    const variance = losses.reduce((sum, loss) => sum + (loss - mean) ** 2, 0) / (n - 1);
    return mean > Math.max(GAIN_MIN, STANDARD_ERRORS * Math.sqrt(variance / n));
  }
}
