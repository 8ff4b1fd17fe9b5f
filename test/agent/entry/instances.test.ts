import { expect, test } from 'vitest';
import { packHashes, packTokens } from '../../../shared/codec.ts';
import type { BlocksMessage } from '../../../shared/protocol.ts';
import { Entry } from '../../helpers/entry.ts';
import { reportOf, requestOf } from '../../helpers/reports.ts';
import { tableOf } from '../../helpers/tables.ts';

function blocks(changes: Partial<BlocksMessage>, add: number[] = [], remove: number[] = []): BlocksMessage {
  return {
    t: 'blocks',
    instance: 'a',
    incarnation: 1,
    seq: 0,
    reset: false,
    add: packHashes(add),
    remove: packHashes(remove),
    tokens: packTokens([]),
    ...changes,
  };
}

test('a report is taken if it is newer, whatever way it came', () => {
  const { instances } = new Entry();
  const inFlight = (): number | undefined => instances.views.get('a')?.report?.ledger.inFlight;
  instances.applyReport(reportOf('a', { seq: 5 }, { inFlight: 5 }));
  instances.applyReport(reportOf('a', { seq: 4 }, { inFlight: 4 }));
  instances.applyReport(reportOf('a', { seq: 5 }, { inFlight: 50 }));
  expect(inFlight()).toBe(5);
  instances.applyReport(reportOf('a', { incarnation: 2, seq: 1 }, { inFlight: 1 }));
  expect(inFlight()).toBe(1);
  instances.applyReport(reportOf('a', { incarnation: 1, seq: 99 }, { inFlight: 99 }));
  expect(inFlight()).toBe(1);
});

test('age counts from the moment that the report describes', () => {
  const { instances, clock } = new Entry();
  clock.advance(1000);
  instances.applyReport(reportOf('a', { ageMs: 30 }), 5);
  expect(instances.views.get('a')?.describesMs).toBe(965);
});

test('block deltas are applied in order; a gap asks for the whole view', () => {
  const { instances } = new Entry();
  instances.applyReport(reportOf('a'));
  expect(instances.applyBlocks(blocks({ seq: 3 }, [1]))).toBe(false);
  expect(instances.applyBlocks(blocks({ seq: 4, reset: true }, [1, 2]))).toBe(true);
  expect(instances.applyBlocks(blocks({ seq: 5 }, [3], [1]))).toBe(true);
  expect(instances.applyBlocks(blocks({ seq: 5 }, [9]))).toBe(true);
  expect(instances.applyBlocks(blocks({ seq: 7 }, [9]))).toBe(false);
  expect(instances.applyBlocks(blocks({ seq: 6, incarnation: 2 }, [9]))).toBe(false);
  expect(instances.index.blocksOf('a')).toBe(2);
  expect(instances.applyBlocks(blocks({ instance: 'unknown', seq: 9 }, [1]))).toBe(true);
});

test('the tokens of a delta are those of its blocks', () => {
  const entry = new Entry();
  entry.instances.applyReport(reportOf('a'));
  entry.instances.applyBlocks(blocks({ reset: true, tokens: packTokens([21, 0, 70]) }, [1, 2, 3]));
  const matched = (...hashes: number[]): number | undefined =>
    entry.take(requestOf(1000), Float64Array.from(hashes)).candidates[0]?.hitTokens;
  expect([matched(1), matched(1, 2), matched(1, 2, 3), matched(9)]).toEqual([16, 64, 64, 0]);
  // Of 1000 tokens believed, 70 tokens of the first three blocks leave 1000; of 50 believed they correct the estimate.
  const hitOf = (promptTokens: number, exactTokens: boolean) =>
    entry.take(requestOf(promptTokens, { exactTokens }), Float64Array.of(1, 2, 3)).candidates[0]?.hitTokens;
  expect([hitOf(1000, false), hitOf(50, false), hitOf(50, true)]).toEqual([64, 64, 48]);
});

test('a restarted engine holds none of the old blocks', () => {
  const { instances } = new Entry();
  instances.applyReport(reportOf('a'));
  instances.applyBlocks(blocks({ reset: true }, [1, 2]));
  instances.applyReport(reportOf('a', { incarnation: 2 }));
  expect(instances.index.blocksOf('a')).toBe(0);
});

test('blocks of a restarted engine that come before its first report stay; those of the old one that come late do not', () => {
  const { instances } = new Entry();
  instances.applyReport(reportOf('a'));
  instances.applyBlocks(blocks({ reset: true }, [1, 2]));
  instances.applyBlocks(blocks({ incarnation: 2, reset: true }));
  instances.applyBlocks(blocks({ incarnation: 2, seq: 1 }, [3, 4, 5]));
  instances.applyReport(reportOf('a', { incarnation: 2 }));
  expect(instances.index.blocksOf('a')).toBe(3);
  expect(instances.applyBlocks(blocks({ seq: 1 }, [6]))).toBe(true);
  expect(instances.applyBlocks(blocks({ seq: 2, reset: true }, [7]))).toBe(true);
  expect(instances.index.blocksOf('a')).toBe(3);
});

test('an instance that left is forgotten, but the count of requests to it goes on: its door remembers', () => {
  const { instances } = new Entry();
  instances.applyReport(reportOf('a'));
  instances.views.get('a')!.nextSeq = 41;
  instances.applyBlocks(blocks({ reset: true }, [1]));
  instances.remove('a');
  instances.remove('never heard of');
  expect(instances.views.size).toBe(0);
  expect(instances.index.blockCount).toBe(0);
  instances.applyReport(reportOf('a'));
  expect(instances.views.get('a')?.nextSeq).toBe(41);
});

test('the roster names instances and models before anyone has reported', () => {
  const { instances } = new Entry();
  instances.applyRoster(
    tableOf({
      roster: [{ instance: 'a', agent: 'x', doorUrl: 'http://127.0.0.1:9', models: ['m', 'lora'], kind: 'k' }],
    }).roster,
  );
  expect(instances.views.get('a')).toMatchObject({ doorUrl: 'http://127.0.0.1:9', report: undefined });
  expect([...instances.models]).toEqual(['m', 'lora']);
});

test('the link is as fast as its fastest probe, and follows slower ones slowly', () => {
  const { instances } = new Entry();
  instances.applyReport(reportOf('a'));
  const view = instances.views.get('a')!;
  for (const roundTripMs of [5, 2, 40]) instances.noteLink(view, roundTripMs);
  expect(view.linkMs).toBeGreaterThan(2);
  expect(view.linkMs).toBeLessThan(5);
});
