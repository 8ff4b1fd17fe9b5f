import { expect, test } from 'vitest';
import { makeContext } from '../../../agent/entry/context.ts';
import { makeBrainReader } from '../../../agent/link/brain-reader.ts';
import { defaultConfig } from '../../../shared/config/index.ts';
import { seededRng, silentLog } from '../../../shared/env.ts';
import type { InstanceReport } from '../../../shared/instance.ts';
import { openTable } from '../../../shared/table.ts';
import { reportOf } from '../../helpers/reports.ts';
import { VirtualClock } from '../../helpers/virtual-clock.ts';

function reader() {
  const clock = new VirtualClock();
  const { agent } = defaultConfig('token-of-the-tests');
  const context = makeContext(
    { ...agent, id: 'entry' },
    'token-of-the-tests',
    { clock, rng: seededRng(1), log: silentLog },
    1,
    [],
  );
  const { instances } = context;
  const asked: string[][] = [];
  const read = makeBrainReader(context, {
    open: openTable,
    onTable: () => undefined,
    keep: () => undefined,
    resync: (named) => void asked.push(named),
    resend: () => undefined,
    resendBlocks: () => undefined,
  });
  const state = (seq: number, full: boolean, reports: InstanceReport[], part = 0, parts = 1): void =>
    read({ t: 'state', seq, full, part, parts, reports, gone: [] });
  const known = (): string[] => [...instances.views.keys()].toSorted();
  return { clock, instances, asked, state, known };
}

test('what the whole state names in none of its parts has left', () => {
  const { clock, state, known, asked } = reader();
  state(
    1,
    true,
    ['a', 'b', 'left'].map((id) => reportOf(id)),
  );
  clock.advance(31_000);
  state(7, true, [reportOf('a', { seq: 2 })], 0, 2);
  expect(known()).toEqual(['a', 'b', 'left']);
  state(7, true, [reportOf('b', { seq: 2 })], 1, 2);
  expect(known()).toEqual(['a', 'b']);
  state(8, false, [reportOf('c')]);
  expect(asked).toEqual([]);
});

test('parts that do not come whole remove nobody', () => {
  const { clock, state, known } = reader();
  state(
    1,
    true,
    ['a', 'b'].map((id) => reportOf(id)),
  );
  clock.advance(31_000);
  state(7, true, [reportOf('a', { seq: 2 })], 0, 3);
  state(7, true, [], 2, 3);
  state(9, true, [], 1, 2);
  expect(known()).toEqual(['a', 'b']);
});

test('a brain of an earlier version sends one part', () => {
  const { clock, state, known } = reader();
  state(
    1,
    true,
    ['a', 'b'].map((id) => reportOf(id)),
  );
  clock.advance(31_000);
  state(2, true, [reportOf('b', { seq: 2 })]);
  expect(known()).toEqual(['b']);
});

test('an instance whose door cannot be reached by HTTP is not taken', () => {
  const { instances, state, known } = reader();
  state(1, true, [reportOf('a', { doorUrl: 'ftp://host' }), reportOf('b')]);
  instances.applyRoster([{ instance: 'c', agent: 'x', doorUrl: 'http://host/v1', models: ['m'], kind: 'k' }]);
  expect(known()).toEqual(['b']);
  instances.applyReport(reportOf('b', { seq: 2, doorUrl: 'nowhere' }));
  expect(instances.views.get('b')?.doorUrl).toBe('http://127.0.0.1:1');
});
