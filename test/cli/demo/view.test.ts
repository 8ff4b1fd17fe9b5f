import { expect, it } from 'vitest';
import { plainLine, viewLines } from '../../../cli/demo/view.ts';
import { midway } from './demo-state.ts';

it('shows both phases, the learner and every instance', () => {
  const text = viewLines(midway(), 100).join('\n');
  expect(text).toMatch(/^Lodestar demo.* 1:23$/m);
  expect(text).toContain('Phase 2 of 2: learned routes');
  expect(text).toContain('20/40 done, 4 in flight, 2.4/s, 1 failed');
  expect(text).toMatch(/TTFT mean +400 ms +60\.0 ms/);
  expect(text).toMatch(/cache hits +- +25\.0 %/);
  expect(text).toContain('trusted (first after 12 s): median error 12 %');
  expect(text).toContain('off by 12 % (median of 256), by prior and net on wasm');
  expect(text).toContain('table 9, learned in force');
  expect(text).toMatch(/a30-1 +A30 +█+░+ +25 % was 75 % +200 ms +25 % +-$/m);
  expect(text).toMatch(/a100 +A100 +█+░+ +75 % was 25 % +100 ms +25 % +71 %$/m);
});

it.each([40, 80, 200])('never writes a line wider than %i columns', (width) => {
  for (const line of viewLines(midway(), width)) expect(Array.from(line).length).toBeLessThanOrEqual(width);
});

it('shows the start, without a brain and without a request', () => {
  const state = { ...midway(), current: undefined, brain: undefined, ready: 3, step: 'starting' };
  expect(viewLines(state, 80).join('\n')).toContain('3 of 9 processes listen');
  expect(plainLine(state)).toBe('[ 83 s] starting: 3 of 9 processes listen');
});

it('says the same in one line for logs', () => {
  expect(plainLine(midway())).toBe(
    '[ 83 s] phase 2, learned routes: 20/40 done, 4 in flight, 1 failed; TTFT mean 60.0 p50 60.0 p99 69.8 ms; trusted: median error 12 %, table 9',
  );
});
