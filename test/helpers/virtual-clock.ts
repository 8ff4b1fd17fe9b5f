import type { Clock, Timer } from '../../shared/env.ts';

const MIN_DELAY_MS = 1e-6;

interface Entry {
  atMs: number;
  order: number;
  fn: () => void;
  periodMs: number | undefined;
  cancelled: boolean;
}

/** Clock under the test's control: time stands still until `advance`. */
export class VirtualClock implements Clock {
  private now = 0;
  private order = 0;
  private entries: Entry[] = [];
  private readonly wallOriginMs: number;

  constructor(wallOriginMs = 1_700_000_000_000) {
    this.wallOriginMs = wallOriginMs;
  }

  nowMs(): number {
    return this.now;
  }

  wallMs(): number {
    return this.wallOriginMs + this.now;
  }

  after(delayMs: number, fn: () => void): Timer {
    return this.add(delayMs, fn, undefined);
  }

  every(periodMs: number, fn: () => void): Timer {
    return this.add(periodMs, fn, periodMs);
  }

  /** Runs every timer due within the next `ms`, in time order, then stands at the end of that span. */
  advance(ms: number): void {
    const end = this.now + ms;
    for (;;) {
      const next = this.nextDue(end);
      if (!next) break;
      this.now = Math.max(this.now, next.atMs);
      if (next.periodMs === undefined) this.entries.splice(this.entries.indexOf(next), 1);
      else next.atMs += next.periodMs;
      next.fn();
    }
    this.now = end;
  }

  /** Like `advance`, in small steps with real I/O let through between them, for code that also awaits sockets. */
  async advanceWithIo(ms: number, stepMs = 5): Promise<void> {
    for (let done = 0; done < ms; done += stepMs) {
      this.advance(Math.min(stepMs, ms - done));
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  private add(delayMs: number, fn: () => void, periodMs: number | undefined): Timer {
    // A delay that rounding would swallow must still pass, or a timer that sets itself again until a time is reached
    // never gets there.
    const entry: Entry = {
      atMs: this.now + (delayMs > 0 ? Math.max(MIN_DELAY_MS, delayMs) : 0),
      order: this.order++,
      fn,
      periodMs,
      cancelled: false,
    };
    this.entries.push(entry);
    return {
      cancel: () => {
        entry.cancelled = true;
        const at = this.entries.indexOf(entry);
        if (at >= 0) this.entries.splice(at, 1);
      },
    };
  }

  private nextDue(end: number): Entry | undefined {
    let best: Entry | undefined;
    for (const entry of this.entries) {
      if (entry.atMs > end || entry.cancelled) continue;
      if (!best || entry.atMs < best.atMs || (entry.atMs === best.atMs && entry.order < best.order)) best = entry;
    }
    return best;
  }
}
