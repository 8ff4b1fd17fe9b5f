import type { Clock } from '../../env.ts';

/** Pause between two slices of training, ms: decisions get their turn. */
const PAUSE_MS = 1;

/**
 * Runs a job to its end, one slice per timer, so that learning never holds up routing for longer than a slice. A job
 * yields after each slice how much it did in it (rows, say; informative), and returns its result, which `done`
 * receives.
 */
export function runSliced<T>(clock: Clock, job: Generator<number, T>, done: (result: T) => void): void {
  const step = (): void => {
    const slice = job.next();
    if (slice.done) done(slice.value);
    else clock.after(PAUSE_MS, step);
  };
  clock.after(PAUSE_MS, step);
}
