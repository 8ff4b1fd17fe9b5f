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
const WATCH_MIN = 64;

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

/**
 * Progressive validation of a challenger: both nets predict each outcome before either learns from it, in the order in which outcomes arrive. The
 * challenger wins only if it is better by more than chance explains; so a round never replaces a better net.
 */
export class PairedTrial {
  private n = 0;
  private mean = 0;
  private squares = 0;

  note(championError: number, challengerError: number): void {
    const gain = championError - challengerError;
    this.n += 1;
    const before = gain - this.mean;
    this.mean += before / this.n;
    this.squares += before * (gain - this.mean);
  }

  verdict(): 'accept' | 'reject' | 'undecided' {
    if (this.n < PAIRS_MIN) return 'undecided';
    const standardError = Math.sqrt(this.squares / (this.n - 1) / this.n);
    if (this.mean > Math.max(GAIN_MIN, STANDARD_ERRORS * standardError)) return 'accept';
    return this.mean <= 0 || this.n >= PAIRS_MAX ? 'reject' : 'undecided';
  }

  summary(): { pairs: number; gain: number } {
    return { pairs: this.n, gain: this.mean };
  }
}

/** Watches the net in force against the prior on the last outcomes: a net that drifts below it must go. */
export class ChampionWatch {
  private pairs: { champion: number; prior: number }[] = [];

  note(championError: number, priorErrorValue: number): void {
    this.pairs.push({ champion: championError, prior: priorErrorValue });
    if (this.pairs.length > WATCH_PAIRS) this.pairs.shift();
  }

  reset(): void {
    this.pairs = [];
  }

  /** Mean errors over the last outcomes; null before the first. */
  errors(): { champion: number; prior: number } | null {
    const n = this.pairs.length;
    if (n === 0) return null;
    const sums = this.pairs.reduce((sum, pair) => ({ champion: sum.champion + pair.champion, prior: sum.prior + pair.prior }));
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
