import { expect, test } from 'vitest';
import { admit } from '../../agent/admit.ts';
import { ENTRY, Entry, EPOCH } from '../helpers/entry.ts';
import { reportOf, requestOf } from '../helpers/reports.ts';

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
  expect(candidate).toMatchObject({ unseen: 1, inFlight: 1, prefilling: 1, pendingTokens: 500, usedTokens: 500, pendingPromptTokens: 500 });
  entry.instances.applyReport(reportOf('a', { seq: 2 }, { inFlight: 0 }));
  expect(entry.take().candidates[0]).toMatchObject({ unseen: 1, inFlight: 1 });
  entry.instances.applyReport(reportOf('a', { seq: 3, seen: [{ entry: ENTRY, epoch: EPOCH, upTo: 0, later: 0 }] }, { inFlight: 1, decoding: 1 }));
  expect(entry.take().candidates[0]).toMatchObject({ unseen: 0, inFlight: 1, decoding: 1 });
  admission.release(false);
  expect(entry.take().candidates[0]).toMatchObject({ unseen: 0, inFlight: 1 });
});

test('what a report has seen out of order is not counted twice', () => {
  const entry = entryWith('a');
  for (let i = 0; i < 4; i++) admit(entry.instances, entry.decide(), PRINT);
  // Of sequences 0 to 3 the door has seen 0 and 2.
  entry.instances.applyReport(reportOf('a', { seq: 2, seen: [{ entry: ENTRY, epoch: EPOCH, upTo: 0, later: 1 }] }, { inFlight: 2 }));
  expect(entry.take().candidates[0]).toMatchObject({ unseen: 2, inFlight: 4 });
});

test('what a door saw of an earlier boot of this entry says nothing of this one', () => {
  const entry = entryWith('a');
  admit(entry.instances, entry.decide(), PRINT);
  entry.instances.applyReport(reportOf('a', { seq: 2, seen: [{ entry: ENTRY, epoch: EPOCH - 1, upTo: 99, later: 0 }, { entry: 'other', epoch: EPOCH, upTo: 99, later: 0 }] }));
  expect(entry.take().candidates[0]?.unseen).toBe(1);
});

test('released with failure, neither the place nor the expected blocks remain; a second release changes nothing', () => {
  const entry = entryWith('a');
  entry.instances.index.add('a', 11);
  const admission = admit(entry.instances, entry.decide(), PRINT);
  expect(entry.instances.index.blocksOf('a')).toBe(3);
  expect(entry.instances.views.get('a')?.breaker.state).toBe('closed');
  admission.release(true);
  admission.release(false);
  expect(entry.take().candidates[0]).toMatchObject({ unseen: 0, inFlight: 0 });
  expect(entry.instances.index.blocksOf('a')).toBe(1);
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
