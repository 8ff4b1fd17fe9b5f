import { afterEach, beforeEach, expect, it } from 'vitest';
import { newCounters } from '../../brain/counters.ts';
import { Ingest } from '../../brain/ingest.ts';
import { ModelStats } from '../../brain/model-stats.ts';
import type { KeptStore } from '../../brain/kept-store.ts';
import { decode } from '../../shared/codec.ts';
import type { Sample } from '../../shared/sample.ts';
import { FakePeer, featureRow, sample, storeIn, tempDir, testEnv } from './fixtures.ts';

let dir: ReturnType<typeof tempDir>;
let store: KeptStore;
let taken: Sample[];
let ingest: Ingest;
let counters: ReturnType<typeof newCounters>;
const env = testEnv();

beforeEach(() => {
  dir = tempDir();
  store = storeIn(dir.dir);
  taken = [];
  counters = newCounters();
  ingest = new Ingest(env, store, counters, (samples) => void taken.push(...samples));
});

afterEach(async () => {
  await store.close();
  dir.remove();
});

function acks(peer: FakePeer): unknown[] {
  return peer.frames.map((frame) => decode(frame, 1e6));
}

it('takes a batch once, stores it, and acknowledges it every time', async () => {
  const peer = new FakePeer('a');
  const batch = {
    batch: 3,
    dropped: 0,
    samples: [sample(featureRow(), 0.1, 0), sample(featureRow(), 0.2, 0)],
    invalid: 1,
  };
  await ingest.accept(peer, batch);
  await ingest.accept(peer, batch);
  await ingest.accept(new FakePeer('b'), batch);
  expect(acks(peer)).toEqual([
    { t: 'ack', batch: 3 },
    { t: 'ack', batch: 3 },
  ]);
  expect(taken).toHaveLength(4);
  expect([...store.samplesSince(0)].map((stored) => stored.sample.priorTtftMs)).toEqual([200, 200, 200, 200]);
  expect(counters).toMatchObject({ samplesReceived: 4, samplesInvalid: 2, batchesDuplicate: 1 });
});

it('takes the same batch number again from a newer boot, and late ones out of order', async () => {
  const one = { dropped: 0, samples: [sample(featureRow(), 0, 0)], invalid: 0 };
  const peer = new FakePeer('a');
  for (const batch of [2, 0, 1, 0]) await ingest.accept(peer, { ...one, batch });
  const reborn = Object.assign(new FakePeer('a'), { epoch: 2 });
  await ingest.accept(reborn, { ...one, batch: 0 });
  expect(taken).toHaveLength(4);
});

it('forgets old batch numbers but never takes one of them again', async () => {
  const peer = new FakePeer('a');
  for (let batch = 0; batch < 1100; batch++) await ingest.accept(peer, { batch, dropped: 0, samples: [], invalid: 0 });
  await ingest.accept(peer, { batch: 5, dropped: 0, samples: [sample(featureRow(), 0, 0)], invalid: 0 });
  expect(taken).toHaveLength(0);
});

it('counts what agents say they lost, which is a total of theirs', async () => {
  const peer = new FakePeer('a');
  for (const [batch, dropped] of [
    [0, 0],
    [1, 7],
    [2, 7],
    [3, 9],
  ] as const)
    await ingest.accept(peer, { batch, dropped, samples: [], invalid: 0 });
  expect(counters.samplesLost).toBe(9);
});

it('acknowledges also when learning fails', async () => {
  const peer = new FakePeer('a');
  const failing = new Ingest(env, store, counters, () => {
    throw new Error('learner');
  });
  await failing.accept(peer, { batch: 0, dropped: 0, samples: [sample(featureRow(), 0, 0)], invalid: 0 });
  expect(acks(peer)).toEqual([{ t: 'ack', batch: 0 }]);
});

it('keeps mean answer length and bytes per token of each model, with forgetting', () => {
  const stats = new ModelStats();
  expect(stats.figures()).toEqual({ meanOutputTokens: { fleet: 200, models: {} }, bytesPerToken: {} });
  const base = sample(featureRow(), 0, 0);
  const of = (outputTokens: number, more: Partial<Sample> = {}): Sample => ({
    ...base,
    ...more,
    outcome: { ...base.outcome, outputTokens, status: 'ok' },
  });
  for (let i = 0; i < 4000; i++) stats.note(of(1000));
  for (let i = 0; i < 4000; i++) stats.note(of(50, { promptBytes: 3000 }));
  stats.note({ ...base, outcome: { ...base.outcome, status: 'failed', outputTokens: 1e6 } });
  stats.note(of(50, { promptBytes: 0, model: 'tokens-only' }));
  const { meanOutputTokens, bytesPerToken } = stats.figures();
  expect(meanOutputTokens.models['m']).toBeCloseTo(50, 0);
  expect(bytesPerToken['m']).toBeCloseTo(3, 2);
  expect(bytesPerToken).not.toHaveProperty('tokens-only');
});
