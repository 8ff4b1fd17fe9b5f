import { expect, test } from 'vitest';
import { guardedClock } from '../../shared/guarded-clock.ts';
import { logSpy } from '../helpers/log-spy.ts';
import { VirtualClock } from '../helpers/virtual-clock.ts';

test('what the work of a timer throws ends neither the process nor the timer, and is said with its count', () => {
  const virtual = new VirtualClock();
  const { log, lines } = logSpy();
  const clock = guardedClock(virtual, log);
  let turns = 0;
  const timer = clock.every(100, () => {
    turns += 1;
    if (turns % 2 === 1) throw new Error(`of turn ${turns}`);
  });
  clock.after(50, () => {
    throw new Error('once');
  });
  virtual.advance(10_400);
  timer.cancel();
  virtual.advance(1000);
  expect(turns).toBe(104);
  expect(clock.nowMs()).toBe(11_400);
  expect(clock.wallMs()).toBe(virtual.wallMs());
  expect(lines).toMatchObject([
    { level: 50, count: 1, err: { message: 'once' } },
    { level: 50, count: 51 },
  ]);
});
