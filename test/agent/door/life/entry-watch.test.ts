import { beforeEach, expect, it } from 'vitest';
import { EntryWatch } from '../../../../agent/door/life/entry-watch.ts';
import { OpenAttempts } from '../../../../agent/door/open-attempts.ts';
import { openAttempt } from '../../../helpers/open-attempt.ts';
import { VirtualClock } from '../../../helpers/virtual-clock.ts';

let clock: VirtualClock;
let open: OpenAttempts;
let watch: EntryWatch;
beforeEach(() => {
  clock = new VirtualClock();
  open = new OpenAttempts();
  watch = new EntryWatch(clock, open);
});

it('ten seconds without a word of the entry end what it has here', () => {
  const one = openAttempt();
  open.add(one);
  watch.heard('e', 1);
  clock.advance(10_000);
  expect(one.failures).toEqual([]);
  clock.advance(1000);
  expect(one.failures).toEqual(['link']);
});

it('every word of it counts anew', () => {
  const one = openAttempt();
  open.add(one);
  for (let i = 0; i < 10; i++) {
    watch.heard('e', 1);
    clock.advance(9000);
  }
  expect(one.failures).toEqual([]);
});

it('a later boot of the entry does not answer for an earlier one', () => {
  const [old, young] = [openAttempt(), openAttempt({ id: { epoch: 2 } })];
  open.add(old);
  open.add(young);
  watch.heard('e', 1);
  for (let i = 0; i < 12; i++) {
    watch.heard('e', 2);
    clock.advance(1000);
  }
  expect(old.failures).toEqual(['link', 'link']);
  expect(young.failures).toEqual([]);
});

it('requests of the door’s own entry are not watched', () => {
  const own = openAttempt({ id: { watched: false } });
  open.add(own);
  watch.heard('e', 1);
  clock.advance(60_000);
  expect(own.failures).toEqual([]);
});

it('an entry without attempts may be quiet for as long as it likes', () => {
  watch.heard('e', 1);
  clock.advance(60_000);
  const one = openAttempt({ sentMs: 60_000 });
  open.add(one);
  watch.heard('e', 1);
  clock.advance(9000);
  expect(one.failures).toEqual([]);
});

it('time in which this process stood still does not count', () => {
  let late: (() => void) | undefined;
  let nowMs = 0;
  const stalled = {
    nowMs: () => nowMs,
    wallMs: () => nowMs,
    after: () => ({ cancel: () => undefined }),
    every: (_: number, fn: () => void) => ((late = fn), { cancel: () => undefined }),
  };
  const own = new EntryWatch(stalled, open);
  const one = openAttempt();
  open.add(one);
  own.heard('e', 1);
  for (let i = 0; i < 3; i++) {
    nowMs += 60_000;
    late?.();
  }
  expect(one.failures).toEqual([]);
});

it('closed, it ends nothing', () => {
  const one = openAttempt();
  open.add(one);
  watch.heard('e', 1);
  watch.close();
  clock.advance(60_000);
  expect(one.failures).toEqual([]);
});
