import { expect, test } from 'vitest';
import { admit } from '../../../agent/entry/admit.ts';
import { packHashes, packTokens } from '../../../shared/codec.ts';
import type { BlocksMessage } from '../../../shared/protocol.ts';
import { ENTRY, Entry, EPOCH } from '../../helpers/entry.ts';
import { reportOf, requestOf } from '../../helpers/reports.ts';

const PRINT = { hashes: Float64Array.of(11, 12, 13), bytes: 400 };

function entryWith(...ids: string[]): Entry {
  const entry = new Entry({ policy: 'least-request' });
  for (const id of ids) entry.instances.applyReport(reportOf(id));
  return entry;
}

test('a reservation counts until the report has seen it, then no more', () => {
  const entry = entryWith('a');
  const admission = admit(entry.instances, entry.decide(requestOf(500)), PRINT);
  const candidate = entry.take().candidates[0]!;
  expect(candidate).toMatchObject({
    unseen: 1,
    inFlight: 1,
    prefilling: 1,
    pendingTokens: 500,
    usedTokens: 500,
    pendingPromptTokens: 500,
  });
  entry.instances.applyReport(reportOf('a', { seq: 2 }, { inFlight: 0 }));
  expect(entry.take().candidates[0]).toMatchObject({ unseen: 1, inFlight: 1 });
  entry.instances.applyReport(
    reportOf('a', { seq: 3, seen: [{ entry: ENTRY, epoch: EPOCH, upTo: 0, later: 0 }] }, { inFlight: 1, decoding: 1 }),
  );
  expect(entry.take().candidates[0]).toMatchObject({ unseen: 0, inFlight: 1, decoding: 1 });
  admission.release(false);
  expect(entry.take().candidates[0]).toMatchObject({ unseen: 0, inFlight: 1 });
});

test('what a report has seen out of order is not counted twice', () => {
  const entry = entryWith('a');
  for (let i = 0; i < 4; i++) admit(entry.instances, entry.decide(), PRINT);
  // Of sequences 0 to 3 the door has seen 0 and 2.
  entry.instances.applyReport(
    reportOf('a', { seq: 2, seen: [{ entry: ENTRY, epoch: EPOCH, upTo: 0, later: 1 }] }, { inFlight: 2 }),
  );
  expect(entry.take().candidates[0]).toMatchObject({ unseen: 2, inFlight: 4 });
});

test('what a door saw of an earlier boot of this entry says nothing of this one', () => {
  const entry = entryWith('a');
  admit(entry.instances, entry.decide(), PRINT);
  entry.instances.applyReport(
    reportOf('a', {
      seq: 2,
      seen: [
        { entry: ENTRY, epoch: EPOCH - 1, upTo: 99, later: 0 },
        { entry: 'other', epoch: EPOCH, upTo: 99, later: 0 },
      ],
    }),
  );
  expect(entry.take().candidates[0]?.unseen).toBe(1);
});

/**
 * Blocks of the prompt that the entry believes cached at the instance, by hits in tokens: half a block of 32 more is
 * guessed.
 */
function believed(entry: Entry, hashes = PRINT.hashes): number {
  return Math.floor((entry.take(requestOf(1000), hashes).candidates[0]?.hitTokens ?? 0) / 32);
}

function delta(
  seq: number,
  changes: { add?: number[]; remove?: number[]; reset?: boolean; incarnation?: number },
): BlocksMessage {
  const { add = [], remove = [], reset = false, incarnation = 1 } = changes;
  return {
    t: 'blocks',
    instance: 'a',
    incarnation,
    seq,
    reset,
    add: packHashes(add),
    tokens: packTokens([]),
    remove: packHashes(remove),
  };
}

test('released with failure, neither the place nor the expected prompt remain; a second release changes nothing', () => {
  const entry = entryWith('a');
  entry.instances.applyBlocks(delta(0, { add: [11], reset: true }));
  const admission = admit(entry.instances, entry.decide(), PRINT);
  expect(believed(entry)).toBe(3);
  expect(entry.instances.index.blocksOf('a')).toBe(1);
  expect(entry.instances.views.get('a')?.breaker.state).toBe('closed');
  admission.release(true);
  admission.release(false);
  expect(entry.take().candidates[0]).toMatchObject({ unseen: 0, inFlight: 0 });
  expect(believed(entry)).toBe(1);
});

test('once the door has what was expected, it alone says what becomes of it', () => {
  const entry = entryWith('a');
  entry.instances.applyBlocks(delta(0, { reset: true }));
  const admission = admit(entry.instances, entry.decide(), PRINT);
  entry.instances.applyBlocks(delta(1, { add: [11, 12, 13] }));
  expect(believed(entry)).toBe(3);
  entry.instances.applyBlocks(delta(2, { remove: [12, 13] }));
  expect(believed(entry)).toBe(1);
  admission.release(true);
  expect(believed(entry)).toBe(1);
});

test('a request that was aborted in the queue is expected no more once its door has spoken', () => {
  const entry = entryWith('a');
  entry.instances.applyBlocks(delta(0, { reset: true }));
  admit(entry.instances, entry.decide(), PRINT).release(false);
  expect(believed(entry)).toBe(3);
  entry.clock.advance(300);
  entry.instances.applyBlocks(delta(1, { add: [99] }));
  expect(believed(entry)).toBe(0);
});

test('neither a reset of the view nor a restart of the engine takes back what is in flight', () => {
  const entry = entryWith('a');
  entry.instances.applyBlocks(delta(0, { reset: true }));
  const ended = admit(entry.instances, entry.decide(), { hashes: Float64Array.of(21, 22), bytes: 400 });
  const inFlight = admit(entry.instances, entry.decide(), PRINT);
  entry.instances.applyBlocks(delta(1, { reset: true, add: [31] }));
  expect([believed(entry), believed(entry, Float64Array.of(21, 22))]).toEqual([3, 2]);
  ended.release(false);
  entry.instances.applyReport(reportOf('a', { incarnation: 2 }));
  entry.instances.applyBlocks(delta(0, { reset: true, incarnation: 2 }));
  expect([believed(entry), believed(entry, Float64Array.of(21, 22)), believed(entry, Float64Array.of(31))]).toEqual([
    3, 0, 0,
  ]);
  inFlight.release(true);
  expect(believed(entry)).toBe(0);
});

test('the requests of a burst see one another: load and prefix, before any report', () => {
  const entry = entryWith('a', 'b');
  const first = entry.decide(requestOf(1000), PRINT.hashes);
  admit(entry.instances, first, PRINT);
  const snapshot = entry.take(requestOf(1000), PRINT.hashes);
  const at = snapshot.views.indexOf(first.view);
  expect(snapshot.candidates[at]).toMatchObject({ inFlight: 1, hitTokens: 96 });
  expect(snapshot.candidates[1 - at]).toMatchObject({ inFlight: 0, hitTokens: 0 });
  expect(entry.decide().view).not.toBe(first.view);
});

test('requests to one instance are numbered without gaps', () => {
  const entry = entryWith('a');
  expect([0, 1, 2].map(() => admit(entry.instances, entry.decide(), PRINT).seq)).toEqual([0, 1, 2]);
});
