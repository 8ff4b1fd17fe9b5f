import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { evaluateLog, splitByTime, TRAIN_SHARE } from '../../../brain/fit/evaluate.ts';
import { figuresOf, quantile } from '../../../brain/fit/figures.ts';
import { readRequestLog, type RequestLog } from '../../../brain/fit/log-reader.ts';
import { observe } from '../../../brain/fit/timeline.ts';
import { loadBackend } from '../../../brain/predictor/backend.ts';
import { countedCsv, serve, timedCsv } from './synthetic-log.ts';

const dir = mkdtempSync(join(tmpdir(), 'lodestar-fit-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const { tf } = await loadBackend({ backend: 'wasm', tfjsNodeGpuDir: '', gpuMemoryLimitMb: 0 });

function logOf(text: string): RequestLog {
  const path = join(dir, 'log.csv');
  writeFileSync(path, text);
  return readRequestLog(path);
}

const served = serve(900);
const timed = logOf(timedCsv(served));
const counted = logOf(countedCsv(served));

/**
 * The log with other latencies wherever they show only after request `from` has arrived: its own, later ones, and ends
 * of those in flight.
 */
function withOtherFuture(log: RequestLog, from: number): RequestLog {
  const nowMs = (served.served[from] as (typeof served.served)[number]).startMs;
  const requests = log.requests.map((request, i) => {
    const { endMs } = served.served[i] as (typeof served.served)[number];
    if (endMs < nowMs) return request;
    return { ...request, e2eMs: request.e2eMs * 3 + 17, ttftMs: i < from ? request.ttftMs : request.ttftMs * 3 + 11 };
  });
  return { ...log, requests };
}

describe('what was known when a request was routed', () => {
  it('is exact where the log has times', () => {
    const at = 500;
    const { instance, startMs } = served.served[at] as (typeof served.served)[number];
    const expected = served.served.slice(0, at).filter((one) => one.instance === instance && one.endMs > startMs);
    const [observation] = observe(timed).slice(at);
    expect(observation?.flights.map(({ request }) => request.ttftMs)).toEqual(expected.map(({ ttftMs }) => ttftMs));
    expect(observation?.flights[0]?.ageMs).toBeCloseTo(startMs - (expected[0]?.startMs ?? 0), 1);
  });

  it('is rebuilt where it has only counts: the same requests in flight, ages right within two arrivals', () => {
    const exact = observe(timed);
    const rebuilt = observe(counted);
    const errors: number[] = [];
    rebuilt.forEach(({ flights }, i) => {
      if (i < 100) return;
      const truth = new Map(
        exact[i]?.flights.map(({ request, ageMs }) => [request.ttftMs * 1e6 + request.promptTokens, ageMs]),
      );
      expect(flights).toHaveLength(truth.size);
      for (const { request, ageMs } of flights)
        errors.push(Math.abs(ageMs - (truth.get(request.ttftMs * 1e6 + request.promptTokens) ?? Infinity)));
    });
    expect(quantile(errors, 0.5)).toBeLessThan(330);
  });

  it.each([
    ['timed', timed],
    ['counted', counted],
  ] as const)('holds nothing of the future (%s)', (_, log) => {
    const from = 700;
    const known = (one: RequestLog): unknown =>
      observe(one)
        .slice(0, from + 1)
        .map(({ atMs, flights, sinceFirstTokenMs, ended }) => ({
          atMs,
          sinceFirstTokenMs,
          ended,
          ages: flights.map(({ ageMs }) => ageMs),
        }));
    expect(known(withOtherFuture(log, from))).toEqual(known(log));
  });
});

describe('the cut in time', () => {
  it.each([
    ['timed', timed],
    ['counted', counted],
  ] as const)('learns only from what had ended, and tests on what arrived later (%s)', (_, log) => {
    const { training, testing } = splitByTime(observe(log));
    const cutMs = served.served[0]!.startMs + TRAIN_SHARE * (served.served.at(-1)!.startMs - served.served[0]!.startMs);
    const of = new Map(log.requests.map((request, i) => [request, served.served[i]!]));
    const slackMs = log === counted ? 3000 : 0;
    for (const { request } of training) expect(of.get(request)!.endMs).toBeLessThan(cutMs + slackMs);
    for (const { request } of testing) expect(of.get(request)!.startMs).toBeGreaterThanOrEqual(cutMs - slackMs - 1);
    const last = Math.max(...training.map(({ request }) => of.get(request)!.endMs));
    expect(last).toBeLessThan(of.get(testing[1]!.request)!.startMs);
  });
});

describe('the report', () => {
  it.each([
    ['timed', timed, 0.12],
    ['counted', counted, 0.25],
  ] as const)(
    'predicts the future far better than prompt size does, and always says the same (%s)',
    (_, log, limit) => {
      const report = evaluateLog(tf, log, 'x.csv');
      expect(report).toMatchObject({ n: 900, failed: 0 });
      expect(report.trainedOn + report.testedOn + report.leftOut).toBe(900);
      expect(report.ttft.medianApe).toBeLessThan(limit);
      expect(report.ttft.medianApe).toBeLessThan(report.promptSizeAlone.medianApe / 1.5);
      expect(report.ttft.p90Coverage).toBeGreaterThan(0.7);
      expect(report.ttft.spearman).toBeGreaterThan(0.85);
      expect(evaluateLog(tf, log, 'x.csv')).toEqual(report);
    },
  );

  it('needs enough requests', () => {
    expect(() => evaluateLog(tf, logOf(timedCsv(serve(60))), 'short.csv')).toThrow(
      /short.csv: holds \d+ requests that ended .* at least 100 and 30 are needed/,
    );
  });
});

describe('figures', () => {
  it('are what they say', () => {
    const predictions = [100, 200, 300, 400].map((observedMs, i) => ({
      observedMs,
      predictedMs: observedMs * 1.1,
      predictedP90Ms: i === 0 ? 50 : 1000,
    }));
    const figures = figuresOf(predictions);
    expect(figures.medianApe).toBeCloseTo(0.1);
    expect(figures.p90Ape).toBeCloseTo(0.1);
    expect(figures.spearman).toBeCloseTo(1);
    expect(figures.p90Coverage).toBe(0.75);
  });

  it('have no rank correlation where nothing varies', () => {
    expect(
      figuresOf([1, 2].map((observedMs) => ({ observedMs, predictedMs: 5, predictedP90Ms: 5 }))).spearman,
    ).toBeNull();
  });
});
