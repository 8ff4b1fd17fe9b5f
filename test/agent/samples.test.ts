import { expect, test } from 'vitest';
import { SampleQueue } from '../../agent/samples.ts';
import { MAX_SAMPLES_PER_FRAME } from '../../shared/protocol.ts';
import { sampleOf } from '../helpers/samples.ts';

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
  expect([first?.batch, first?.samples.length, second?.batch, second?.samples.length]).toEqual([0, MAX_SAMPLES_PER_FRAME, 1, 5]);
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

test('the bound holds with unacknowledged batches too: the oldest of them goes whole', () => {
  const queue = filled(10, 6);
  queue.take();
  for (let i = 0; i < 5; i++) queue.push(sampleOf());
  expect(queue.size).toBe(5);
  expect(queue.dropped).toBe(6);
  queue.ack(0);
  expect(queue.size).toBe(5);
});
