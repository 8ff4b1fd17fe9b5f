import { describe, expect, it } from 'vitest';
import { SimClock } from '../../../sim/fleet/clock.ts';

const never = (): boolean => false;

describe('virtual clock of a fleet', () => {
  it('runs events by time, and those of one time in the order in which they were set', async () => {
    const clock = new SimClock();
    const seen: string[] = [];
    for (const [delayMs, name] of [
      [5, 'c'],
      [1, 'a'],
      [5, 'd'],
      [3, 'b'],
    ] as const)
      clock.after(delayMs, () => seen.push(`${name}${clock.nowMs()}`));
    await clock.run(10, never);
    expect(seen).toEqual(['a1', 'b3', 'c5', 'd5']);
  });

  it('repeats, stops at the time given, and forgets what was cancelled', async () => {
    const clock = new SimClock();
    let ticks = 0;
    const timer = clock.every(10, () => (ticks += 1));
    clock.after(15, () => expect.unreachable()).cancel();
    await clock.run(35, never);
    expect(ticks).toBe(3);
    timer.cancel();
    await clock.run(100, never);
    expect(ticks).toBe(3);
  });

  it('stops when told', async () => {
    const clock = new SimClock();
    let ticks = 0;
    clock.every(1, () => (ticks += 1));
    await clock.run(1e9, () => ticks === 5);
    expect(clock.nowMs()).toBe(5);
  });

  it('stands still until what is awaited has settled, even in failure', async () => {
    const clock = new SimClock();
    const seen: string[] = [];
    clock.after(1, () => {
      const work = new Promise<void>((resolve) => setImmediate(resolve)).then(
        () => void seen.push(`settled at ${clock.nowMs()}`),
      );
      clock.settle(work);
      clock.settle(Promise.reject(new Error('no')));
    });
    clock.after(2, () => seen.push('next'));
    await clock.run(10, never);
    expect(seen).toEqual(['settled at 1', 'next']);
  });

  it('moves on however small a delay is', async () => {
    const clock = new SimClock();
    await clock.run(0, never);
    let calls = 0;
    const again = (): void => {
      calls += 1;
      if (clock.nowMs() < 1e-5) clock.after(1e-300, again);
    };
    clock.after(1e-300, again);
    await clock.run(1, never);
    expect(calls).toBeLessThan(20);
  });
});
