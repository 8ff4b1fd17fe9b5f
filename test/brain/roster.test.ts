import { expect, test } from 'vitest';
import { fitRoster, isSameEntry, rosterEntry } from '../../brain/roster.ts';
import { encode } from '../../shared/codec.ts';
import { NARROW_NAME_BOUNDS } from '../../shared/report.ts';
import { report } from './fixtures.ts';

const NAMES = Array.from({ length: 1100 }, (_, i) => `lora-${i}`);

test('an entry has no more names than agents of every version take', () => {
  const entry = rosterEntry(report('i', 'a', { models: [...NAMES, 'x'.repeat(300)] }));
  expect(entry.models).toEqual(NAMES.slice(0, NARROW_NAME_BOUNDS.names));
  expect(isSameEntry(entry, rosterEntry(report('i', 'a', { models: NAMES })))).toBe(true);
  expect(isSameEntry(entry, rosterEntry(report('i', 'a', { models: NAMES.with(3, 'other') })))).toBe(false);
});

test('a roster that fits stays as it is; else names go first, then the last entries, the same each time', () => {
  const roster = Array.from({ length: 50 }, (_, i) =>
    rosterEntry(report(`i${i}`, 'a', { models: i % 2 === 0 ? NAMES : ['m'] })),
  );
  expect(fitRoster(roster)).toEqual(roster);
  const cut = fitRoster(roster, 100_000);
  expect(encode(cut).byteLength).toBeLessThanOrEqual(100_000);
  expect(cut.map(({ instance }) => instance)).toEqual(roster.map(({ instance }) => instance));
  expect(cut[1]?.models).toEqual(['m']);
  expect(cut[0]?.models).toEqual(NAMES.slice(0, cut[0]?.models.length));
  expect(cut[0]?.models.length).toBeGreaterThan(50);
  expect(fitRoster(roster, 100_000)).toEqual(cut);
  const bare = fitRoster(roster, 1000);
  expect(encode(bare).byteLength).toBeLessThanOrEqual(1000);
  expect(bare.length).toBeGreaterThan(3);
});
