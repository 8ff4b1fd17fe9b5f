import { expect, test } from 'vitest';
import { Watchdog } from '../../../agent/entry/watchdog.ts';
import { VirtualClock } from '../../helpers/virtual-clock.ts';

function watched(deadlineMs: number) {
  return {
    deadlineMs,
    fired: 0,
    onTimeout() {
      this.fired += 1;
    },
  };
}

test('fires once, within one sweep after the deadline, never before it', () => {
  const clock = new VirtualClock();
  const watchdog = new Watchdog(clock);
  const one = watched(250);
  watchdog.add(one);
  clock.advance(249);
  expect(one.fired).toBe(0);
  clock.advance(101);
  expect(one.fired).toBe(1);
  clock.advance(1000);
  expect(one.fired).toBe(1);
});

test('a deadline that moves is met where it is now; what was removed never fires', () => {
  const clock = new VirtualClock();
  const watchdog = new Watchdog(clock);
  const moving = watched(150);
  const gone = watched(150);
  watchdog.add(moving);
  watchdog.add(gone);
  clock.advance(100);
  moving.deadlineMs = 450;
  watchdog.remove(gone);
  clock.advance(300);
  expect([moving.fired, gone.fired]).toEqual([0, 0]);
  clock.advance(100);
  expect(moving.fired).toBe(1);
});

test('one may add or remove others when it fires; after close nothing fires', () => {
  const clock = new VirtualClock();
  const watchdog = new Watchdog(clock);
  const second = watched(100);
  const late = watched(200);
  watchdog.add({
    deadlineMs: 100,
    onTimeout: () => {
      watchdog.remove(second);
      watchdog.add(late);
    },
  });
  watchdog.add(second);
  clock.advance(100);
  watchdog.close();
  clock.advance(1000);
  expect([second.fired, late.fired]).toEqual([0, 0]);
});
