import { expect, test } from 'vitest';
import { encode } from '../../shared/codec.ts';
import { seededRng } from '../../shared/env.ts';
import type { InstanceReport } from '../../shared/instance.ts';
import {
  boundNames,
  mendFigures,
  NAME_BOUNDS,
  narrowReport,
  NARROW_NAME_BOUNDS,
  reportBytes,
  reportSchema,
} from '../../shared/report.ts';
import { framesOf } from '../../shared/report-frames.ts';
import { pick } from '../helpers/random.ts';
import { reportOf } from '../helpers/reports.ts';

const ODD = [Number.NaN, Infinity, -Infinity, -0.39, -1e300, 1e300, 5e15, -0];

function whole(): InstanceReport {
  return reportOf('i', {
    engine: { running: 3, waiting: 1, kvUsageRatio: 0.25, ageMs: 417 },
    gpu: { utilRatio: 0.9, memUsedRatio: 0.8, smClockRatio: 1, powerRatio: 0.7, temperatureC: 40, ageMs: 20 },
    host: { cpuRatio: 0.1, memUsedRatio: 0.2 },
    seen: [{ entry: 'e', epoch: 1, upTo: 4, later: 3 }],
  });
}

test('a report with any odd figures is one that others take, once they are mended', () => {
  const rng = seededRng(5);
  for (let round = 0; round < 500; round++) {
    const report = whole();
    for (const group of ['limits', 'ledger', 'law', 'cache', 'engine', 'gpu', 'host'] as const) {
      const figures = report[group] as unknown as Record<string, unknown>;
      for (const name of Object.keys(figures))
        if (typeof figures[name] === 'number' && rng() < 0.3) figures[name] = pick(rng, ODD);
    }
    const before = JSON.stringify(report);
    const said: string[] = [];
    const mended = mendFigures(report, ({ problem }) => said.push(problem));
    expect(reportSchema.safeParse(mended).error, before).toBeUndefined();
  }
});

test('a report in order stays as it is, and nothing is said', () => {
  const said: unknown[] = [];
  expect(mendFigures(whole(), (fault) => said.push(fault))).toEqual(whole());
  expect(said).toEqual([]);
});

test('names are cut by length, number and characters, the same each time, and not where all fit', () => {
  const names = ['base', 'x'.repeat(513), 'y'.repeat(512), 'z'];
  expect(boundNames(names, NAME_BOUNDS)).toEqual(['base', 'y'.repeat(512), 'z']);
  const some = ['a', 'b'];
  expect(boundNames(some, NAME_BOUNDS)).toBe(some);
  expect(boundNames(['aa', 'bb', 'cc'], { nameChars: 9, names: 9, chars: 4 })).toEqual(['aa', 'bb']);
  const report = reportOf('i', { models: Array.from({ length: 2000 }, (_, i) => `m${i}`) });
  expect(narrowReport(report, NARROW_NAME_BOUNDS).models).toEqual(report.models.slice(0, 1024));
  expect(narrowReport(report, NAME_BOUNDS)).toBe(report);
});

test('the size of a report is never underestimated', () => {
  const names = ['', '\u00e9', '\u6f22\u5b57', '\u{1f600}', 'plain-name'];
  for (const report of [
    whole(),
    {
      ...whole(),
      kind: '\u6f22'.repeat(256),
      models: names,
      seen: Array.from({ length: 256 }, () => ({
        entry: '\u6f22'.repeat(256),
        epoch: 2 ** 52,
        upTo: 2 ** 52,
        later: 2 ** 32 - 1,
      })),
    },
  ]) {
    expect(reportBytes(report)).toBeGreaterThanOrEqual(encode(report).byteLength);
  }
});

test('frames hold what fits, in order; one that is too large alone goes alone', () => {
  const large = reportOf('large', { models: Array.from({ length: 100 }, () => 'x'.repeat(100)) });
  const small = reportOf('small');
  const frames = framesOf([small, large, small, small], 2 * reportBytes(small));
  expect(frames).toEqual([[small], [large], [small, small]]);
  expect(framesOf([])).toEqual([[]]);
});
