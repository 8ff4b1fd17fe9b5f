import { expect, test } from 'vitest';
import { LawFit } from '../../../../agent/door/law/law-fit.ts';
import { type BatchView, type ClockedRequest, StepClock } from '../../../../agent/door/law/step-clock.ts';
import { decodeStepMs, GENERIC_LAW } from '../../../../shared/predictor/step-law.ts';

class Streams {
  readonly fit = new LawFit(GENERIC_LAW);
  readonly stepClock = new StepClock(this.fit, 2048);
  readonly requests: ClockedRequest[];

  constructor(count: number) {
    this.requests = Array.from({ length: count }, () => ({
      startedMs: 0,
      ownTokens: 100,
      hitTokens: 0,
      lastTokenMs: 0,
      foundIdle: false,
    }));
  }

  token(request: ClockedRequest, atMs: number): void {
    const batch: BatchView = {
      decoding: this.requests.length,
      contextTokens: 100 * this.requests.length,
      pending: 0,
      pendingBefore: 0,
    };
    this.stepClock.onToken(request, atMs, () => batch);
    request.lastTokenMs = atMs;
  }

  get stepMs(): number {
    return decodeStepMs(this.fit.state(), this.requests.length, 100 * this.requests.length);
  }
}

test('several sequences of one answer send several chunks a step: the step is between bursts, not between chunks', () => {
  const streams = new Streams(1);
  const [request] = streams.requests as [ClockedRequest];
  for (let step = 1; step <= 200; step++) for (const late of [0, 0.05, 0.3]) streams.token(request, step * 30 + late);
  expect(streams.stepMs).toBeGreaterThan(28);
  expect(streams.stepMs).toBeLessThan(31);
});

test('tokens that a stalled host hands over together are no step of no length', () => {
  const streams = new Streams(4);
  for (let step = 1; step <= 300; step++) {
    // Every tenth step is read together with the next one.
    const readMs = (step % 10 === 0 ? step + 1 : step) * 25;
    streams.requests.forEach((request, i) => streams.token(request, readMs + i * 0.01));
  }
  expect(streams.stepMs).toBeGreaterThan(24);
  expect(streams.stepMs).toBeLessThan(27);
});

test('steps that are shorter than the silence between bursts are told apart', () => {
  const streams = new Streams(3);
  for (let step = 1; step <= 400; step++)
    streams.requests.forEach((request, i) => streams.token(request, step * 2 + i * 0.2));
  expect(streams.stepMs).toBeGreaterThan(1.8);
  expect(streams.stepMs).toBeLessThan(2.6);
});

test('bursts that take as long as the steps run into one another and are told apart', () => {
  const streams = new Streams(64);
  for (let step = 1; step <= 200; step++)
    streams.requests.forEach((request, i) => streams.token(request, step * 20 + i * 0.3));
  expect(streams.stepMs).toBeCloseTo(20, 0);
});

test('forgets the burst under way with its engine', () => {
  const streams = new Streams(1);
  const [request] = streams.requests as [ClockedRequest];
  for (let step = 1; step <= 5; step++) streams.token(request, step * 30);
  streams.stepClock.reset();
  const before = streams.fit.state().samples;
  streams.token(request, 1000);
  expect(streams.fit.state().samples).toBe(before);
});
