import type { Sample } from '../shared/sample.ts';
import type { Trust } from '../shared/table.ts';
import { TrustGate, type TrustLimits } from '../shared/trust.ts';
import type { Residuals } from './predictor/forecast.ts';

/** Predictions of a challenger kept, so that the gate can speak of it once it is in force. */
const KEPT_MAX = 256;

interface Judged {
  predictedMs: number;
  p90Ms: number;
  observedMs: number;
  regime: Sample['regime'];
  atMs: number;
}

/**
 * The fleet's trust gate. It judges the net in force by what it predicted before learning; when a challenger takes
 * over, or a net is dropped, the window is filled with what the challenger, or the prior, predicted for the same
 * outcomes: the verdict is always about what routes.
 */
export class TrustWatch {
  private readonly limits: TrustLimits;
  private gate: TrustGate;
  private trusted: boolean;
  private challenger: Judged[] = [];
  private prior: Judged[] = [];

  constructor(limits: TrustLimits, startTrusted: boolean) {
    this.limits = limits;
    this.gate = new TrustGate(limits, startTrusted);
    this.trusted = startTrusted;
  }

  noteChampion(sample: Sample, residuals: Residuals, nowMs: number): void {
    const one = judge(sample, residuals, nowMs);
    if (one) note(this.gate, one);
  }

  noteChallenger(sample: Sample, residuals: Residuals, nowMs: number): void {
    keep(this.challenger, judge(sample, residuals, nowMs));
  }

  /** What the prior alone said, kept for the day on which a net has to go. */
  notePrior(sample: Sample, residuals: Residuals, nowMs: number): void {
    keep(this.prior, judge(sample, residuals, nowMs));
  }

  dropChallenger(): void {
    this.challenger = [];
  }

  /** The challenger is now the net in force. */
  promote(): void {
    this.judgeBy(this.challenger);
    this.challenger = [];
  }

  /** The net in force is gone and the prior routes alone: it is judged by what it said of the same outcomes. */
  demote(): void {
    this.judgeBy(this.prior);
    this.challenger = [];
  }

  verdict(nowMs: number): Trust {
    const trust = this.gate.verdict(nowMs);
    this.trusted = trust.verdict === 'trusted';
    return trust;
  }

  private judgeBy(judged: readonly Judged[]): void {
    this.gate = new TrustGate(this.limits, this.trusted);
    for (const one of judged) note(this.gate, one);
  }
}

function keep(list: Judged[], one: Judged | null): void {
  if (!one) return;
  list.push(one);
  if (list.length > KEPT_MAX) list.shift();
}

/** TTFT where it is known; else the end-to-end time, predicted for the answer length that came. */
function judge(sample: Sample, residuals: Residuals, atMs: number): Judged | null {
  const { outcome, priorTtftMs, priorTpotMs, regime } = sample;
  if (outcome.status !== 'ok') return null;
  const ttftMs = priorTtftMs * Math.exp(residuals.ttft);
  const ttftP90Ms = priorTtftMs * Math.exp(residuals.ttftP90);
  if (outcome.ttftMs !== null)
    return { predictedMs: ttftMs, p90Ms: ttftP90Ms, observedMs: outcome.ttftMs, regime, atMs };
  const gaps = Math.max(0, outcome.outputTokens - 1);
  const predictedMs = ttftMs + gaps * priorTpotMs * Math.exp(residuals.tpot);
  return {
    predictedMs,
    p90Ms: ttftP90Ms + gaps * priorTpotMs * Math.exp(residuals.tpotP90),
    observedMs: outcome.e2eMs,
    regime,
    atMs,
  };
}

function note(gate: TrustGate, one: Judged): void {
  gate.note(one.predictedMs, one.p90Ms, one.observedMs, one.regime, one.atMs);
}
