import { beforeEach, expect, test } from 'vitest';
import { Breaker } from '../../../agent/entry/breaker.ts';
import { VirtualClock } from '../../helpers/virtual-clock.ts';

let clock: VirtualClock;
let breaker: Breaker;
beforeEach(() => {
  clock = new VirtualClock();
  breaker = new Breaker({ failures: 3, openMs: 1000, maxOpenMs: 5000 }, clock);
});

function fail(times: number): void {
  for (let i = 0; i < times; i++) breaker.fail();
}

test('opens after that many failures in a row, not sooner', () => {
  fail(2);
  breaker.succeed();
  fail(2);
  expect(breaker.state).toBe('closed');
  fail(1);
  expect(breaker.state).toBe('open');
});

test('after its pause one trial goes through, and only one', () => {
  fail(3);
  clock.advance(999);
  expect(breaker.state).toBe('open');
  clock.advance(1);
  expect(breaker.state).toBe('trial');
  breaker.begin();
  expect(breaker.state).toBe('open');
  breaker.succeed();
  expect(breaker.state).toBe('closed');
});

test('each failed trial doubles the pause, up to the limit', () => {
  fail(3);
  clock.advance(1000);
  for (const pause of [2000, 4000, 5000, 5000]) {
    breaker.begin();
    fail(1);
    clock.advance(pause - 1);
    expect(breaker.state).toBe('open');
    clock.advance(1);
    expect(breaker.state).toBe('trial');
  }
});

test('requests that were under way when it opened do not lengthen the pause', () => {
  fail(40);
  clock.advance(1000);
  expect(breaker.state).toBe('trial');
});

test('a trial whose client left leaves room for the next trial', () => {
  fail(3);
  clock.advance(1000);
  breaker.begin();
  breaker.forget();
  expect(breaker.state).toBe('trial');
});
