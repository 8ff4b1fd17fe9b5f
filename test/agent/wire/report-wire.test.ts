import { expect, test } from 'vitest';
import {
  decodeReport,
  encodeReport,
  encodeReports,
  MAX_REPORT_BYTES,
  openReports,
} from '../../../agent/wire/report-wire.ts';
import { encode } from '../../../shared/codec.ts';
import { seededRng } from '../../../shared/env.ts';
import { NAME_BOUNDS } from '../../../shared/report.ts';
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
  expect(decodeReport(encodeReport(REPORT) as string)).toEqual([REPORT]);
});

test('a report that is too large for a header is not sent in one', () => {
  const seen = Array.from({ length: 256 }, (_, i) => ({
    entry: `entry-number-${i}-${'x'.repeat(40)}`,
    epoch: i,
    upTo: i,
    later: 0,
  }));
  expect(encodeReport({ ...REPORT, seen })).toBeUndefined();
});

test('names that do not fit in a header are left out of it, and the rest is sent', () => {
  const models = Array.from({ length: 1100 }, (_, i) => `lora-${i}`);
  expect(decodeReport(encodeReport({ ...REPORT, models }) as string)).toEqual([{ ...REPORT, models: null }]);
});

test('a body carries lists of names as far as there is room', () => {
  const models = Array.from({ length: 20_000 }, (_, i) => `lora-${i}-${'x'.repeat(100)}`);
  const body = encodeReports(Array.from({ length: 64 }, () => ({ ...REPORT, models })));
  expect(body.length).toBeLessThan(MAX_REPORT_BYTES);
  const counts = openReports(body).map((report) => report.models?.length);
  expect(counts).toHaveLength(64);
  expect(counts[0]).toBe(NAME_BOUNDS.names);
  expect(counts.at(-1)).toBeUndefined();
});

test('one that does not fit costs no other', () => {
  const faults: unknown[] = [];
  expect(openReports(encode([{ ...REPORT, doorUrl: 'ftp://host' }, REPORT]), (fault) => faults.push(fault))).toEqual([
    REPORT,
  ]);
  expect(faults).toEqual([{ instance: 'a', problem: 'doorUrl: is not the http:// or https:// URL of a host' }]);
});

test('a bad one is none, and never throws', () => {
  const text = encodeReport(REPORT) as string;
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
  ]) {
    expect(openReports(encode(value))).toEqual([]);
  }
});
