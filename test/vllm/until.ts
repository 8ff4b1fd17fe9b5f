import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 20;

/**
 * Waits until the condition holds, in real time, which a real vLLM leaves no way around; throws after `maxMs`. The
 * bound is there to end a run that hangs: it is generous, so that a busy machine does not fail a test.
 */
export async function until(what: string, condition: () => boolean | Promise<boolean>, maxMs = 60_000): Promise<void> {
  const endMs = performance.now() + maxMs;
  while (!(await condition())) {
    if (performance.now() > endMs) throw new Error(`${what}: not within ${maxMs / 1000} s`);
    await sleep(POLL_MS);
  }
}
