import { HEAD_COUNT, HEADS, type NetScorer, type ResidualNet } from '../../shared/predictor/net.ts';
import { makeScorer } from '../../shared/predictor/kernel.ts';

const TTFT = HEADS.indexOf('ttft');
const TTFT_P90 = HEADS.indexOf('ttftP90');
const TPOT = HEADS.indexOf('tpot');
const TPOT_P90 = HEADS.indexOf('tpotP90');

/** Log ratios to the prior that are predicted for one row. */
export interface Residuals {
  ttft: number;
  ttftP90: number;
  tpot: number;
  tpotP90: number;
}

/**
 * A net that predicts, one row a call, by the kernel that agents use; without a net it is the prior itself: residual 0.
 */
export class Forecast {
  readonly net: ResidualNet | null;
  private readonly scorer: NetScorer | null;
  private readonly out = new Float32Array(HEAD_COUNT);

  constructor(net: ResidualNet | null) {
    this.net = net;
    this.scorer = net && makeScorer(net, 1);
  }

  /** `p90Log`: what stands in for the 90th percentiles while there is no net (logarithms). */
  residuals(row: Float32Array, p90Log: { ttft: number; tpot: number }): Residuals {
    if (!this.scorer) return { ttft: 0, ttftP90: p90Log.ttft, tpot: 0, tpotP90: p90Log.tpot };
    this.scorer.score(row, 1, this.out);
    const at = (head: number): number => this.out[head] as number;
    return { ttft: at(TTFT), ttftP90: at(TTFT_P90), tpot: at(TPOT), tpotP90: at(TPOT_P90) };
  }
}
