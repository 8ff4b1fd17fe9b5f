import type { Clock, Timer } from '../../shared/env.ts';

/**
 * A delay that rounding would swallow must still pass, or a timer that sets itself again until a time is reached never
 * gets there.
 */
const MIN_DELAY_MS = 1e-6;

class Event implements Timer {
  atMs: number;
  readonly order: number;
  readonly fn: () => void;
  cancelled = false;

  constructor(atMs: number, order: number, fn: () => void) {
    this.atMs = atMs;
    this.order = order;
    this.fn = fn;
  }

  cancel(): void {
    this.cancelled = true;
  }
}

/**
 * Virtual time for a whole fleet: events in a binary heap, by time and then by order of setting, so that a run repeats
 * exactly. Code under simulation that awaits something calls `settle` with a promise: no event runs before it is
 * settled.
 */
export class SimClock implements Clock {
  /** events run so far */
  events = 0;
  private now = 0;
  private order = 0;
  private readonly heap: Event[] = [];
  private unsettled: Promise<unknown> | undefined;

  nowMs(): number {
    return this.now;
  }

  /** Origin 2023-11-14T22:13:20Z, a round number of ms. */
  wallMs(): number {
    return 1_700_000_000_000 + this.now;
  }

  after(delayMs: number, fn: () => void): Timer {
    return this.push(this.now + (delayMs > 0 ? Math.max(MIN_DELAY_MS, delayMs) : 0), fn);
  }

  every(periodMs: number, fn: () => void): Timer {
    let next: Timer;
    let dueMs = this.now;
    let cancelled = false;
    const tick = (): void => {
      if (cancelled) return;
      dueMs += periodMs;
      next = this.push(dueMs, tick);
      fn();
    };
    dueMs += periodMs;
    next = this.push(dueMs, tick);
    return {
      cancel() {
        cancelled = true;
        next.cancel();
      },
    };
  }

  /** Time stands still until the promise is settled, and what waits for it has run. */
  settle(promise: Promise<unknown>): void {
    this.unsettled = this.unsettled ? Promise.allSettled([this.unsettled, promise]) : promise;
  }

  /** Runs events in order until `isDone`, or until none is left before `untilMs`. */
  async run(untilMs: number, isDone: () => boolean): Promise<void> {
    while (!isDone()) {
      const event = this.heap[0];
      if (!event || event.atMs > untilMs) return;
      this.pop();
      if (event.cancelled) continue;
      this.now = event.atMs;
      this.events += 1;
      event.fn();
      while (this.unsettled) {
        const promise = this.unsettled;
        this.unsettled = undefined;
        await promise.catch(() => undefined);
        // Chains of several awaits end before the next turn of the process's own loop.
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
  }

  private push(atMs: number, fn: () => void): Event {
    const { heap } = this;
    const event = new Event(atMs, this.order++, fn);
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent] as Event;
      if (isBefore(above, event)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = event;
    return event;
  }

  private pop(): void {
    const { heap } = this;
    const last = heap.pop() as Event;
    const n = heap.length;
    if (n === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= n) break;
      if (child + 1 < n && isBefore(heap[child + 1] as Event, heap[child] as Event)) child += 1;
      const below = heap[child] as Event;
      if (isBefore(last, below)) break;
      heap[at] = below;
      at = child;
    }
    heap[at] = last;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
