import { expect, test } from 'vitest';
import { OutsideTraffic } from '../../../agent/door/outside-traffic.ts';
import type { Log } from '../../../shared/env.ts';

function watch(): { outside: OutsideTraffic; said: string[] } {
  const said: string[] = [];
  const log = {
    warn: (_: object, text: string) => said.push(`warn ${text}`),
    info: (_: object, text: string) => said.push(`info ${text}`),
  } as unknown as Log;
  return { outside: new OutsideTraffic('i', log), said };
}

test('warns once when the gauges stay above the ledger, and says when it is over', () => {
  const { outside, said } = watch();
  for (let second = 1; second <= 8; second++) outside.note(2, 5, second * 1000);
  expect(outside.requests).toBe(3);
  expect(said).toHaveLength(1);
  outside.note(2, 2, 9000);
  expect(outside.requests).toBe(0);
  expect(said).toHaveLength(2);
});

test('a gauge that is older than the ledger is no alarm: the most in flight since the last reading counts', () => {
  const { outside, said } = watch();
  for (let second = 1; second <= 20; second++) {
    outside.note(6, 6, (second - 1) * 1000);
    outside.note(1, 6, second * 1000);
  }
  expect(outside.requests).toBe(0);
  expect(said).toEqual([]);
});
