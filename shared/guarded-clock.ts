import type { Clock, Log } from './env.ts';

/** The same fault of a timer is said again after this long. */
const SAY_MS = 10_000;

/**
 * A clock whose timers end nothing but themselves: what a callback throws is said with its stack, and a timer that
 * repeats goes on.
 */
export function guardedClock(clock: Clock, log: Log): Clock {
  let saidMs = -Infinity;
  let unsaid = 0;
  const guarded = (work: () => void) => (): void => {
    try {
      work();
    } catch (error) {
      unsaid += 1;
      if (clock.nowMs() - saidMs < SAY_MS) return;
      log.error({ err: error, count: unsaid }, 'the work of a timer failed');
      saidMs = clock.nowMs();
      unsaid = 0;
    }
  };
  return {
    nowMs: () => clock.nowMs(),
    wallMs: () => clock.wallMs(),
    after: (delayMs, work) => clock.after(delayMs, guarded(work)),
    every: (periodMs, work) => clock.every(periodMs, guarded(work)),
  };
}
