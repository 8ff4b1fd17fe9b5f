import type { Clock, Timer } from '../../shared/env.ts';

/** How often deadlines are looked at: they are accurate to this. */
const SWEEP_MS = 100;

/** A wait that may take too long; `deadlineMs` is moved by its owner as progress is made. */
export interface Watched {
  deadlineMs: number;
  onTimeout(): void;
}

/** One timer for the deadlines of all attempts: moving a deadline with each chunk costs an assignment. */
export class Watchdog {
  private readonly clock: Clock;
  private readonly watched = new Set<Watched>();
  private readonly timer: Timer;

  constructor(clock: Clock) {
    this.clock = clock;
    this.timer = clock.every(SWEEP_MS, () => this.sweep());
  }

  add(one: Watched): void {
    this.watched.add(one);
  }

  remove(one: Watched): void {
    this.watched.delete(one);
  }

  close(): void {
    this.timer.cancel();
  }

  private sweep(): void {
    const nowMs = this.clock.nowMs();
    for (const one of this.watched) {
      if (nowMs < one.deadlineMs) continue;
      this.watched.delete(one);
      one.onTimeout();
    }
  }
}
