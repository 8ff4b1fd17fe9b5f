import { describe, expect, test } from 'vitest';
import { guards } from '../../../../agent/entry/guards/index.ts';
import { Entry } from '../../../helpers/entry.ts';
import { reportOf, requestOf } from '../../../helpers/reports.ts';
import type { InstanceView } from '../../../../agent/entry/instances.ts';
import type { InstanceReport } from '../../../../shared/instance.ts';

function viewWith(changes: Partial<InstanceReport> | undefined): { view: InstanceView; entry: Entry } {
  const entry = new Entry();
  entry.clock.advance(10_000);
  if (changes) entry.instances.applyReport(reportOf('a', changes));
  else
    entry.instances.applyRoster([
      { instance: 'a', agent: 'x', doorUrl: 'http://127.0.0.1:9', models: ['m'], kind: 'k' },
    ]);
  return { view: entry.instances.views.get('a')!, entry };
}

const context = (entry: Entry, promptTokens = 1000, model: string | undefined = 'm') => ({
  request: requestOf(promptTokens, { model }),
  nowMs: entry.clock.nowMs(),
  staleAfterMs: 2000,
});

describe.each(guards.map((guard) => [guard.name, guard] as const))('every guard: %s', (name, guard) => {
  test('describes itself under a name of its own', () => {
    expect(guard.describe).not.toBe('');
    expect(guards.filter((one) => one.name === name)).toHaveLength(1);
  });

  test('lets a healthy, fresh instance pass', () => {
    const { view, entry } = viewWith({});
    expect(guard.allows(view, context(entry))).toBe(true);
  });

  test('answers for an instance that has never reported, and changes nothing', () => {
    const { view, entry } = viewWith(undefined);
    const before = JSON.stringify({ ...view, breaker: view.breaker.state });
    expect(typeof guard.allows(view, context(entry))).toBe('boolean');
    expect(JSON.stringify({ ...view, breaker: view.breaker.state })).toBe(before);
  });
});

test('no set of guards lets an instance through that has never reported', () => {
  const { view, entry } = viewWith(undefined);
  expect(guards.filter((guard) => guard.yields === 'never').every((guard) => guard.allows(view, context(entry)))).toBe(
    false,
  );
});

function refusedBy(
  changes: Partial<InstanceReport>,
  promptTokens?: number,
  model?: string,
  prepare?: (view: InstanceView, entry: Entry) => void,
): string[] {
  const { view, entry } = viewWith(changes);
  prepare?.(view, entry);
  return guards.filter((guard) => !guard.allows(view, context(entry, promptTokens, model))).map((guard) => guard.name);
}

describe('each guard refuses its own case and no other', () => {
  test.each([
    ['health', () => refusedBy({ health: 'down' })],
    ['health', () => refusedBy({ health: 'starting' })],
    ['drain', () => refusedBy({ draining: true })],
    ['model', () => refusedBy({}, 1000, 'another')],
    ['stale', () => refusedBy({ ageMs: 2001 })],
    ['fits', () => refusedBy({}, 50_000)],
    ['fits', () => refusedBy({ limits: { ...reportOf('x').limits, maxModelLen: 512 } }, 1000)],
    ['breaker', () => refusedBy({}, 1000, 'm', (view) => [1, 2, 3].forEach(() => view.breaker.fail()))],
  ])('%s', (name, run) => {
    expect(run()).toEqual([name]);
  });

  test('a request without a model goes anywhere', () => {
    const { view, entry } = viewWith({ models: ['other'] });
    expect(
      guards.every((guard) => guard.allows(view, { ...context(entry), request: requestOf(10, { model: undefined }) })),
    ).toBe(true);
  });

  test('the door does not know its length limit: only the cache bounds the prompt', () => {
    expect(refusedBy({ limits: { ...reportOf('x').limits, maxModelLen: 0 } }, 45_000)).toEqual([]);
  });
});

describe('snapshots', () => {
  test('soft guards give way when nobody is left, hard ones never', () => {
    const entry = new Entry({ policy: 'random' });
    entry.clock.advance(10_000);
    entry.instances.applyReport(reportOf('old', { ageMs: 9000 }));
    entry.instances.applyReport(reportOf('down', { health: 'down' }));
    const decision = entry.decide();
    expect(decision.view.id).toBe('old');
    expect(decision.reason).toBe('config, soft guards relaxed');
    entry.instances.applyReport(reportOf('fresh'));
    expect(entry.decide()).toMatchObject({ reason: 'config', view: { id: 'fresh' } });
    expect(entry.take(requestOf(100), undefined, new Set(['fresh', 'old'])).views).toEqual([]);
  });

  test('reuse leaks nothing from one snapshot into the next', () => {
    const entry = new Entry();
    for (const id of ['a', 'b', 'c']) entry.instances.applyReport(reportOf(id, {}, { inFlight: 3 }));
    entry.instances.index.add('a', 7);
    entry.take(requestOf(1000), Float64Array.of(7));
    const later = entry.take(requestOf(1000), Float64Array.of(8), new Set(['a']));
    expect(later.candidates.map((one) => [one.report.instance, one.hitTokens, one.inFlight, one.unseen])).toEqual([
      ['b', 0, 3, 0],
      ['c', 0, 3, 0],
    ]);
  });

  test('more instances than one word of the index has bits', () => {
    const entry = new Entry();
    for (let i = 0; i < 100; i++) entry.instances.applyReport(reportOf(`i${i}`));
    for (let i = 0; i < 100; i += 3) for (let block = 1; block <= i; block++) entry.instances.index.add(`i${i}`, block);
    const hits = entry
      .take(
        requestOf(10_000),
        Float64Array.from({ length: 100 }, (_, i) => i + 1),
      )
      .candidates.map((one) => one.hitTokens);
    expect(hits).toEqual(Array.from({ length: 100 }, (_, i) => (i % 3 === 0 && i > 0 ? i * 32 : 0)));
  });
});
