import { beforeEach, expect, it } from 'vitest';
import { LostRequests } from '../../../../agent/door/life/lost-requests.ts';
import type { OpenAttempt } from '../../../../agent/door/open-attempts.ts';
import { openAttempt } from '../../../helpers/open-attempt.ts';

let lost: LostRequests;
beforeEach(() => {
  lost = new LostRequests();
});

/** A reading each second from 1 s on. Gives what was found, with the second. */
function read(
  seconds: number,
  atEngine: number | ((second: number) => number),
  open: readonly OpenAttempt[],
  from = 1,
): [number, OpenAttempt[]][] {
  const found: [number, OpenAttempt[]][] = [];
  for (let second = from; second < from + seconds; second++) {
    const gone = lost.note(
      { beganMs: second * 1000, atEngine: typeof atEngine === 'number' ? atEngine : atEngine(second) },
      open,
    );
    if (gone.length > 0) found.push([second, gone]);
  }
  return found;
}

it('a request that the engine does not count in readings over ten seconds is lost', () => {
  const one = openAttempt();
  expect(read(11, 0, [one])).toEqual([[11, [one]]]);
});

it('needs five readings, however far apart they are', () => {
  const one = openAttempt();
  const at = (second: number): OpenAttempt[] => lost.note({ beganMs: second * 1000, atEngine: 0 }, [one]);
  for (const second of [10, 20, 30, 40]) expect(at(second)).toEqual([]);
  expect(at(50)).toEqual([one]);
});

it('one reading that counts all of them begins anew', () => {
  const one = openAttempt();
  expect(read(20, (second) => (second === 10 ? 1 : 0), [one])).toEqual([]);
  expect(read(1, 0, [one], 21)).toEqual([[21, [one]]]);
});

it('a request that was sent after a reading began is not missing in it', () => {
  expect(read(11, 0, [openAttempt({ sentMs: 11_500 })])).toEqual([]);
});

it('as many as are missing, the longest silent against their forecast first', () => {
  const patient = openAttempt({ forecastMs: 100_000 });
  const late = openAttempt({ forecastMs: 2000 });
  const later = openAttempt({ forecastMs: 500 });
  expect(read(11, 1, [patient, late, later])).toEqual([[11, [later, late]]]);
});

it('one that has had a byte in the meantime is not it', () => {
  const talks = openAttempt({ forecastMs: 0 });
  const silent = openAttempt({ forecastMs: 9000 });
  read(5, 1, [talks, silent]);
  talks.lastByteMs = 5500;
  expect(read(6, 1, [talks, silent], 6)).toEqual([[11, [silent]]]);
});

it('of several sequences all must be there before the first byte, and one afterwards', () => {
  const four = openAttempt({ sequences: 4 });
  expect(read(11, 3, [four])).toEqual([[11, [four]]]);
  lost = new LostRequests();
  four.lastByteMs = 500;
  expect(read(30, 1, [four])).toEqual([]);
});

it('a whole answer may be computed one sequence after the other: one is enough', () => {
  expect(read(30, 1, [openAttempt({ sequences: 4, stream: false })])).toEqual([]);
});

it('what no engine computes, and what is not read, is not missing', () => {
  expect(read(30, 0, [openAttempt({ sequences: 0 }), openAttempt({ paused: true, pausedUntilMs: Infinity })])).toEqual(
    [],
  );
});

it('one whose reader has gone on counts from then on', () => {
  const one = openAttempt({ pausedUntilMs: 4500 });
  expect(read(30, 0, [one])).toEqual([[15, [one]], ...Array.from({ length: 15 }, (_, i) => [16 + i, [one]] as const)]);
});

it('traffic from elsewhere hides it', () => {
  expect(read(60, 3, [openAttempt(), openAttempt()])).toEqual([]);
});
