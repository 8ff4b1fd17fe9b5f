import { expect, test } from 'vitest';
import { decodeReport, encodeReport, openReports } from '../../../agent/wire/report-wire.ts';
import { encode } from '../../../shared/codec.ts';
import { seededRng } from '../../../shared/env.ts';
import { below } from '../../helpers/random.ts';
import { reportOf } from '../../helpers/reports.ts';

const REPORT = reportOf('a', {
  ageMs: 1.25,
  engine: { running: 3, waiting: 1, kvUsageRatio: 0.25, ageMs: 417.125 },
  gpu: { utilRatio: 0.9, memUsedRatio: 0.8, smClockRatio: 1, powerRatio: 0.7, temperatureC: -3.5, ageMs: 20 },
  host: { cpuRatio: 0.1, memUsedRatio: 0.2 },
  seen: [{ entry: 'e', epoch: 1_700_000_000_000, upTo: -1, later: 0xffffffff }],
});

test('a report survives the header to the last digit', () => {
  expect(decodeReport(encodeReport([REPORT]) as string)).toEqual([REPORT]);
});

test('a report that is too large for a header is not sent in one', () => {
  const seen = Array.from({ length: 256 }, (_, i) => ({
    entry: `entry-number-${i}-${'x'.repeat(40)}`,
    epoch: i,
    upTo: i,
    later: 0,
  }));
  expect(encodeReport([{ ...REPORT, seen }])).toBeUndefined();
});

test('a bad one is none, and never throws', () => {
  const text = encodeReport([REPORT]) as string;
  const rng = seededRng(3);
  for (const bad of ['', '????', text.slice(0, -8), 'A'.repeat(5000)]) expect(decodeReport(bad)).toEqual([]);
  for (let i = 0; i < 2000; i++) {
    const at = below(rng, text.length);
    for (const report of decodeReport(
      text.slice(0, at) + String.fromCharCode(43 + below(rng, 80)) + text.slice(at + 1),
    ))
      expect(Number.isFinite(report.ledger.pendingTokens)).toBe(true);
  }
  for (const value of [
    null,
    7,
    {},
    [null],
    [{ ...REPORT, ageMs: Number.NaN }],
    [{ ...REPORT, doorUrl: 'x' }],
    [{ ...REPORT, health: 'fine' }],
    Array.from({ length: 300 }, () => REPORT),
  ]) {
    expect(openReports(encode(value))).toEqual([]);
  }
});
