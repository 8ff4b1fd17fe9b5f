import type { Clock } from '../../shared/env.ts';

export interface BreakerLimits {
  /** failures in a row that open it */
  failures: number;
  openMs: number;
  maxOpenMs: number;
}

/**
 * Keeps requests away from a link that fails. Closed: all pass. Open: none, for a pause that doubles with each failed
 * trial. Then one request at a time is let through as a trial; its success closes the breaker. Client errors (4xx) are
 * not failures.
 */
export class Breaker {
  private readonly limits: BreakerLimits;
  private readonly clock: Clock;
  private failuresInRow = 0;
  private openUntilMs = 0;
  private pauseMs = 0;
  private trial = false;

  constructor(limits: BreakerLimits, clock: Clock) {
    this.limits = limits;
    this.clock = clock;
  }

  get state(): 'closed' | 'open' | 'trial' {
    if (this.pauseMs === 0) return 'closed';
    return this.clock.nowMs() < this.openUntilMs || this.trial ? 'open' : 'trial';
  }

  /** A request is about to use the link. */
  begin(): void {
    if (this.state === 'trial') this.trial = true;
  }

  succeed(): void {
    this.failuresInRow = 0;
    this.pauseMs = 0;
    this.trial = false;
  }

  fail(): void {
    // Requests that were under way when it opened fail one by one: that is the same failure, not another trial.
    if (this.pauseMs > 0 && !this.trial) return;
    this.trial = false;
    this.failuresInRow += 1;
    if (this.pauseMs === 0 && this.failuresInRow < this.limits.failures) return;
    this.pauseMs = Math.min(this.limits.maxOpenMs, this.pauseMs === 0 ? this.limits.openMs : this.pauseMs * 2);
    this.openUntilMs = this.clock.nowMs() + this.pauseMs;
  }

  /** The request ended without telling anything of the link (the client left). */
  forget(): void {
    this.trial = false;
  }
}
