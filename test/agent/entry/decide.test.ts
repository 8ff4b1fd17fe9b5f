import { describe, expect, test } from 'vitest';
import { encodeReport, decodeReport } from '../../../agent/wire/report-wire.ts';
import { type CandidateState, candidateOf } from '../../../shared/candidate.ts';
import { decode, encode } from '../../../shared/codec.ts';
import { seededRng } from '../../../shared/env.ts';
import { FEATURE_COUNT, FEATURES, writeFeatureRow } from '../../../shared/features.ts';
import type { InstanceReport } from '../../../shared/instance.ts';
import { estimatePrior, type PriorEstimate } from '../../../shared/predictor/prior.ts';
import { MAX_FRAME_BYTES, parseBrainMessage } from '../../../shared/protocol.ts';
import { packNet } from '../../../shared/table.ts';
import { Entry } from '../../helpers/entry.ts';
import { reportOf, requestOf } from '../../helpers/reports.ts';
import { randomNet, tableOf, trustOf } from '../../helpers/tables.ts';

const BUSY = reportOf(
  'a',
  {
    engine: { running: 3, waiting: 1, kvUsageRatio: 0.25, ageMs: 417.1 },
    gpu: { utilRatio: 0.93, memUsedRatio: 0.81, smClockRatio: 0.99, powerRatio: 0.7, temperatureC: 61, ageMs: 20.7 },
    host: { cpuRatio: 0.13, memUsedRatio: 0.2 },
  },
  {
    inFlight: 4,
    prefilling: 1,
    decoding: 3,
    pendingTokens: 512.7,
    pendingPromptTokens: 800.3,
    decodeContextTokens: 2711,
    usedTokens: 3000.4,
    workRatio: 0.31,
  },
);

function entryWith(...reports: InstanceReport[]): Entry {
  const entry = new Entry();
  for (const report of reports) entry.instances.applyReport(report);
  return entry;
}

function newPrior(): PriorEstimate {
  return { ttftMs: 0, tpotMs: 0, workMs: 0, baseMs: 0, overTokens: 0, kvPressure: 0 };
}

function rowOf(candidate: CandidateState, request = requestOf(1000)): Float32Array {
  const row = new Float32Array(FEATURE_COUNT);
  writeFeatureRow(row, 0, request, candidate, estimatePrior(request, candidate, newPrior()));
  return row;
}

describe('which policy decides, and why', () => {
  const inForce = (entry: Entry): string => {
    const { policy, reason } = entry.decide();
    return `${policy}: ${reason}`;
  };

  test('no table, an untrusted table, a trusted one', () => {
    const entry = entryWith(reportOf('a'));
    expect(inForce(entry)).toBe('learned: no-table');
    entry.tables.apply(tableOf({ trust: trustOf('untrusted') }));
    expect(inForce(entry)).toBe('lmetric: fallback:untrusted');
    entry.tables.apply(tableOf());
    expect(inForce(entry)).toBe('learned: trusted');
  });

  test('trust may lack for one regime only', () => {
    const entry = entryWith(reportOf('a'));
    entry.tables.apply(
      tableOf({ trust: trustOf('trusted', { regimes: { idle: 'untrusted', queued: 'unknown', full: 'trusted' } }) }),
    );
    expect(inForce(entry)).toBe('lmetric: fallback:untrusted-idle');
    entry.instances.applyReport(reportOf('a', { seq: 2 }, { inFlight: 1, prefilling: 1, pendingTokens: 900 }));
    expect(inForce(entry)).toBe('learned: trusted');
  });

  test("the operator's policy, of the table or of this agent, overrides", () => {
    const entry = entryWith(reportOf('a'));
    entry.tables.apply(tableOf({ policy: 'lmetric' }));
    expect(inForce(entry)).toBe('lmetric: table');
    const own = new Entry({ policy: 'round-robin' });
    own.instances.applyReport(reportOf('a'));
    own.tables.apply(tableOf());
    expect(inForce(own)).toBe('round-robin: config');
  });

  test('an entry that sees bad predictions falls back by itself, and returns when they are good again', () => {
    const entry = entryWith(reportOf('a'));
    entry.tables.apply(tableOf());
    for (let i = 0; i < 48; i++) entry.tables.noteOutcome(1000, 2000, 100, 'idle');
    expect(inForce(entry)).toBe('lmetric: fallback:local-distrust');
    expect(entry.tables.status().localTrust.trusted).toBe(false);
    for (let i = 0; i < 200; i++) entry.tables.noteOutcome(100, 200, 104, 'idle');
    expect(inForce(entry)).toBe('learned: trusted');
  });

  test('bad outcomes that are long past do not count', () => {
    const entry = entryWith(reportOf('a'));
    for (let i = 0; i < 23; i++) entry.tables.noteOutcome(1000, 2000, 100, 'idle');
    entry.clock.advance(200_000);
    for (let i = 0; i < 25; i++) entry.tables.noteOutcome(100, 200, 104, 'idle');
    entry.instances.applyReport(reportOf('a', { seq: 2 }));
    entry.tables.apply(tableOf());
    expect(inForce(entry)).toBe('learned: trusted');
  });

  test('learned goes where the predicted cost is lowest', () => {
    const entry = entryWith(
      reportOf('busy', {}, { inFlight: 4, prefilling: 4, pendingTokens: 8000 }),
      reportOf('idle'),
    );
    entry.tables.apply(tableOf());
    for (let i = 0; i < 50; i++) expect(entry.decide().view.id).toBe('idle');
  });
});

describe('exploration', () => {
  test('each instance is chosen as often as its propensity says', () => {
    // Far apart in cost, so that ties are never drawn; `c` is too far to be explored.
    const entry = entryWith(
      reportOf('a'),
      reportOf('b', {}, { inFlight: 1, decoding: 1, decodeContextTokens: 60_000 }),
      reportOf('c', {}, { inFlight: 9, prefilling: 9, pendingTokens: 20_000 }),
    );
    entry.tables.apply(tableOf({ exploration: 0.3 }));
    const seen = new Map<string, { times: number; propensity: number; reasons: Set<string> }>();
    const rounds = 20_000;
    for (let i = 0; i < rounds; i++) {
      const { view, propensity, reason } = entry.decide();
      const one = seen.get(view.id) ?? { times: 0, propensity, reasons: new Set() };
      expect(propensity).toBeCloseTo(one.propensity, 9);
      seen.set(view.id, { times: one.times + 1, propensity, reasons: one.reasons.add(reason) });
    }
    expect([...seen.keys()].toSorted()).toEqual(['a', 'b']);
    for (const { times, propensity } of seen.values()) expect(times / rounds).toBeCloseTo(propensity, 1.6);
    expect([...(seen.get('b')?.reasons ?? [])]).toEqual(['explore']);
    expect([...(seen.get('a')?.reasons ?? [])]).toEqual(['trusted']);
  });

  test('a single candidate is certain', () => {
    const entry = entryWith(reportOf('a'));
    entry.tables.apply(tableOf({ exploration: 1 }));
    expect(entry.decide()).toMatchObject({ propensity: 1, reason: 'trusted' });
  });

  test('heuristics do not explore', () => {
    const entry = entryWith(reportOf('a'), reportOf('b', {}, { inFlight: 5 }));
    entry.tables.apply(tableOf({ exploration: 1, policy: 'least-request' }));
    for (let i = 0; i < 50; i++) expect(entry.decide()).toMatchObject({ propensity: 1, view: { id: 'a' } });
  });
});

describe('robustness', () => {
  const zeros = { kvTokens: 0, blockTokens: 0, maxNumSeqs: 0, maxBatchedTokens: 0, maxModelLen: 0 };
  const zeroLaw = { c0: 0, c1: 0, c2: 0, c3: 0, c4: 0, c5: 0, t0: 0, frontEndMs: 0, samples: 0, residualMs: 0 };
  const huge = 1e15;
  const strange = [
    reportOf('zeros', { limits: zeros, law: zeroLaw }),
    reportOf(
      'huge',
      {
        limits: { kvTokens: huge, blockTokens: huge, maxNumSeqs: huge, maxBatchedTokens: huge, maxModelLen: huge },
        law: {
          c0: huge,
          c1: huge,
          c2: huge,
          c3: huge,
          c4: huge,
          c5: huge,
          t0: huge,
          frontEndMs: huge,
          samples: huge,
          residualMs: huge,
        },
      },
      {
        inFlight: huge,
        waiting: huge,
        prefilling: huge,
        decoding: huge,
        pendingTokens: huge,
        waitingTokens: huge,
        pendingPromptTokens: huge,
        decodeContextTokens: huge,
        usedTokens: huge,
        workRatio: huge,
        meanOutputTokens: huge,
      },
    ),
    reportOf('full', {}, { usedTokens: 80_000, waitingTokens: 90_000, waiting: 50, inFlight: 300 }),
    BUSY,
  ];

  test.each([1, 0])('rows and predictions are finite and positive whatever a report holds (net: %i)', (withNet) => {
    const entry = entryWith(...strange);
    entry.tables.apply(tableOf({ net: withNet ? packNet(randomNet(seededRng(4), [16])) : null }));
    for (const tokens of [0, 1, 1e6]) {
      for (const report of strange)
        expect([...rowOf(candidateOf(report), requestOf(tokens))].every(Number.isFinite), report.instance).toBe(true);
      const decision = entry.decide(requestOf(tokens, { maxTokens: 1e9, sequences: 1e9 }));
      for (const ms of [
        decision.priorTtftMs,
        decision.priorTpotMs,
        decision.predictedTtftMs,
        decision.predictedTtftP90Ms,
      ]) {
        expect(Number.isFinite(ms)).toBe(true);
        expect(ms).toBeGreaterThan(0);
      }
      expect(decision.propensity).toBeGreaterThan(0);
      expect(decision.propensity).toBeLessThanOrEqual(1);
    }
  });

  test('a net of nonsense falls back to the prior, number by number', () => {
    const net = randomNet(seededRng(5), [8]);
    net.layers[1]!.weights.fill(Number.NaN);
    const entry = entryWith(reportOf('a'));
    entry.tables.apply(tableOf({ net: packNet(net) }));
    const decision = entry.decide();
    expect(decision.predictedTtftMs).toBe(decision.priorTtftMs);
  });

  test('readings that are missing are zero with their flag, never NaN', () => {
    const row = rowOf(candidateOf(reportOf('a')));
    expect([...row].every(Number.isFinite)).toBe(true);
    expect(row[FEATURES.indexOf('gpuPresent')]).toBe(0);
    expect(row[FEATURES.indexOf('engineAge')]).toBe(1);
    expect(rowOf(candidateOf(BUSY))[FEATURES.indexOf('gpuPresent')]).toBe(1);
  });

  test('more candidates than one call of the scorer takes', () => {
    const entry = new Entry();
    for (let i = 0; i < 600; i++)
      entry.instances.applyReport(
        reportOf(
          `i${i}`,
          {},
          { inFlight: i === 555 ? 0 : 3, pendingTokens: i === 555 ? 0 : 4000, prefilling: i === 555 ? 0 : 3 },
        ),
      );
    entry.tables.apply(tableOf());
    expect(entry.decide().view.id).toBe('i555');
  });
});

describe('no skew between what routes and what is learned from', () => {
  test('a report that went over either wire gives the same row, bit for bit', () => {
    const row = rowOf(candidateOf(BUSY));
    const [fromHeader] = decodeReport(encodeReport(BUSY) as string);
    expect(rowOf(candidateOf(fromHeader as InstanceReport))).toEqual(row);
    const message = parseBrainMessage(
      decode(encode({ t: 'state', seq: 1, full: true, reports: [BUSY], gone: [] }), MAX_FRAME_BYTES),
    );
    expect(message.t === 'state' && rowOf(candidateOf(message.reports[0] as InstanceReport))).toEqual(row);
  });

  test('the row of a decision is the row that the same code writes for its candidate', () => {
    const entry = entryWith(BUSY);
    entry.tables.apply(tableOf());
    const request = requestOf(1000);
    const decision = entry.decide(request);
    expect(decision.row).toEqual(rowOf(candidateOf(BUSY), request));
  });
});
