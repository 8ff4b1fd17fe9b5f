import type { OutcomeStatus } from '../../shared/sample.ts';
import type { Culprit, Ending } from './culprit.ts';
import type { Decision } from './decide.ts';

/** Why a request went where it went, and what came of it: for an operator who asks. */
export interface Receipt {
  atWallMs: number;
  path: string;
  model: string | undefined;
  attempt: number;
  chosen: string;
  policy: string;
  reason: string;
  propensity: number;
  tableVersion: number;
  promptTokens: number;
  predictedTtftMs: number;
  candidates: Decision['candidates'];
  status: OutcomeStatus;
  ending: Ending;
  culprit: Culprit;
  ttftMs: number | undefined;
  e2eMs: number;
}

/** The newest decision receipts, in a ring. */
export class Receipts {
  private readonly ring: Receipt[] = [];
  private readonly max: number;
  private next = 0;

  constructor(max: number) {
    this.max = max;
  }

  add(receipt: Receipt): void {
    this.ring[this.next] = receipt;
    this.next = (this.next + 1) % this.max;
  }

  /** Up to `limit` of them, newest first. */
  newest(limit: number): Receipt[] {
    const out: Receipt[] = [];
    for (let i = 1; i <= Math.min(limit, this.ring.length); i++) {
      const receipt = this.ring[(this.next - i + this.max) % this.max];
      if (receipt) out.push(receipt);
    }
    return out;
  }
}
