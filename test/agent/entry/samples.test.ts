import { expect, test } from 'vitest';
import type { OutcomeStatus } from '../../../shared/sample.ts';
import type { AttemptResult } from '../../../agent/entry/forward.ts';
import { readRequest } from '../../helpers/read-request.ts';
import { makeSample, SampleQueue } from '../../../agent/entry/samples.ts';
import { seededRng, silentLog } from '../../../shared/env.ts';
import { MAX_SAMPLES_PER_FRAME } from '../../../shared/protocol.ts';
import { sampleSchema } from '../../../shared/sample.ts';
import { Entry } from '../../helpers/entry.ts';
import { reportOf, requestOf } from '../../helpers/reports.ts';
import { sampleOf } from '../../helpers/samples.ts';

function filled(max: number, n: number): SampleQueue {
  const queue = new SampleQueue(max);
  for (let i = 0; i < n; i++) queue.push(sampleOf({ promptTokens: i }));
  return queue;
}

test('holds at most its bound, drops the oldest and counts them', () => {
  const queue = filled(100, 130);
  expect(queue.size).toBe(100);
  expect(queue.dropped).toBe(30);
  expect(queue.take()?.samples[0]?.promptTokens).toBe(30);
});

test('frames are bounded, numbered, and kept until acknowledged', () => {
  const queue = filled(10_000, MAX_SAMPLES_PER_FRAME + 5);
  const first = queue.take();
  const second = queue.take();
  expect([first?.batch, first?.samples.length, second?.batch, second?.samples.length]).toEqual([
    0,
    MAX_SAMPLES_PER_FRAME,
    1,
    5,
  ]);
  expect(queue.take()).toBeUndefined();
  expect(queue.size).toBe(MAX_SAMPLES_PER_FRAME + 5);
  queue.ack(0);
  queue.ack(77);
  expect(queue.pending().map((one) => one.batch)).toEqual([1]);
  expect(queue.size).toBe(5);
});

test('what is resent after a reconnect is the same, in the same order', () => {
  const queue = filled(10_000, 3);
  const batches = [queue.take()];
  queue.push(sampleOf());
  batches.push(queue.take());
  expect(queue.pending()).toEqual(batches);
  expect(queue.dropped).toBe(0);
});

test('the bound holds with unacknowledged batches too: the oldest samples go one by one, sent or not', () => {
  const queue = filled(10, 6);
  queue.take();
  for (let i = 0; i < 6; i++) queue.push(sampleOf({ promptTokens: 100 + i }));
  expect(queue.size).toBe(10);
  expect(queue.dropped).toBe(2);
  expect(queue.pending().map(({ batch, samples }) => [batch, samples.map((sample) => sample.promptTokens)])).toEqual([
    [0, [2, 3, 4, 5]],
  ]);
  for (let i = 0; i < 5; i++) queue.push(sampleOf());
  expect([queue.size, queue.dropped, queue.pending().length]).toEqual([10, 7, 0]);
  queue.ack(0);
  expect(queue.size).toBe(10);
  expect(
    queue
      .take()
      ?.samples.slice(0, 5)
      .map((sample) => sample.promptTokens),
  ).toEqual([101, 102, 103, 104, 105]);
});

test('every sample fits the schema, whatever the request and its outcome: one that does not would have its whole frame refused', () => {
  const zeroLaw = { c0: 0, c1: 0, c2: 0, c3: 0, c4: 0, c5: 0, t0: 0, frontEndMs: 0, samples: 0, residualMs: 0 };
  const bodies = [
    '{}',
    '{"stream":true,"n":1e308,"max_tokens":1e308}',
    `{"model":"${'m'.repeat(5000)}","prompt":[1,2,3]}`,
  ];
  const entry = new Entry();
  entry.instances.applyReport(
    reportOf('a', {
      law: zeroLaw,
      models: [],
      limits: { kvTokens: 0, blockTokens: 0, maxNumSeqs: 0, maxBatchedTokens: 0, maxModelLen: 0 },
    }),
  );
  const env = { clock: entry.clock, rng: seededRng(1), log: silentLog };
  const results: [OutcomeStatus, number | undefined][] = [
    ['ok', 200],
    ['ok', 204],
    ['failed', 400],
    ['failed', undefined],
    ['timeout', 200],
    ['aborted', undefined],
  ];
  const end: Pick<AttemptResult, 'ending' | 'begun' | 'error' | 'refusal' | 'restMs' | 'e2eMs'> = {
    ending: 'answered',
    begun: true,
    error: undefined,
    refusal: undefined,
    restMs: 0,
    e2eMs: 12.25,
  };
  for (const body of bodies) {
    const client = readRequest('/v1/completions', {}, body);
    for (const [status, httpStatus] of results) {
      for (const usage of [
        undefined,
        { promptTokens: undefined, outputTokens: 7, cachedTokens: 0, engineTtftMs: 1.5 },
      ]) {
        const observed = { ttftMs: 3.5, lastTokenMs: 3.5, tokens: 1, usage, inBandError: false };
        const decision = entry.decide(requestOf(client.prompt.length / 3.7, { model: undefined }));
        const sample = makeSample(env, client, decision, { ...end, httpStatus, observed }, status);
        expect(sampleSchema.safeParse(sample).error).toBeUndefined();
        expect(sample.outcome.status === 'ok').toBe(httpStatus === 200 && status === 'ok');
      }
    }
  }
});

test('time per token is over the tokens after the first, of each sequence', () => {
  const entry = new Entry();
  entry.instances.applyReport(reportOf('a'));
  const env = { clock: entry.clock, rng: seededRng(1), log: silentLog };
  const client = readRequest('/v1/completions', {}, '{"stream":true,"prompt":"x","n":2}');
  const usage = { promptTokens: 10, outputTokens: 42, cachedTokens: 0, engineTtftMs: undefined };
  const observed = { ttftMs: 100, lastTokenMs: 500, tokens: 42, usage, inBandError: false };
  const sample = makeSample(
    env,
    client,
    entry.decide(),
    {
      ending: 'answered',
      httpStatus: 200,
      begun: true,
      error: undefined,
      refusal: undefined,
      restMs: 0,
      observed,
      e2eMs: 510,
    },
    'ok',
  );
  expect(sample.outcome).toMatchObject({ status: 'ok', ttftMs: 100, tpotMs: 20, e2eMs: 510, outputTokens: 42 });
});
