import { describe, expect, it } from 'vitest';
import { newCounters } from '../../brain/counters.ts';
import { Learner, type LearnerOptions } from '../../brain/learn.ts';
import type { FitRequest, FitResult } from '../../brain/predictor/fit.ts';
import { initialNet } from '../../brain/predictor/model.ts';
import { InThreadTrainer, type Trainer } from '../../brain/train.ts';
import { LodestarError } from '../../shared/errors.ts';
import { type Rng, seededRng } from '../../shared/env.ts';
import { FEATURE_COUNT, FEATURES } from '../../shared/features.ts';
import type { Sample } from '../../shared/sample.ts';
import { VirtualClock } from '../helpers/virtual-clock.ts';
import { FakeTrainer, featureRow, sample, testEnv } from './fixtures.ts';

const OPTIONS: LearnerOptions = {
  recencySize: 2048,
  diversitySize: 512,
  maxAgeMs: 3_600_000,
  minNewSamples: 32,
  hidden: [32, 32],
  trust: { minSamples: 40, maxMedianApe: 0.35 },
};

function learnerWith(trainer: Trainer, start = { champion: null, trusted: false }) {
  const clock = new VirtualClock();
  const counters = newCounters();
  const champions: number[] = [];
  const learner = new Learner(OPTIONS, testEnv(clock), trainer, counters, start, () =>
    champions.push(counters.challengersAccepted),
  );
  return { clock, counters, champions, learner };
}

/** Traffic whose TTFT departs from the prior by a function of two features, and its TPOT by a third, with noise. */
function drawSample(rng: Rng, sign = 1): Sample {
  const row = featureRow({ 0: 6 + 3 * rng(), 6: 4 * rng(), 22: rng() });
  const ttft =
    sign * (0.35 * (row[6] as number) - 0.5) + 0.4 * Math.max(0, (row[0] as number) - 7.5) + 0.1 * (rng() - 0.5);
  const tpot = 0.6 * (row[22] as number) + 0.05 * (rng() - 0.5);
  return sample(row, ttft, tpot);
}

/** A trainer whose net says the same log ratio for everything. */
function constantTrainer(value: number): FakeTrainer {
  return new FakeTrainer(async ({ hidden }: FitRequest): Promise<FitResult> => {
    const ones = new Float32Array(FEATURE_COUNT).fill(1);
    const net = initialNet(
      hidden,
      new Float32Array(FEATURE_COUNT),
      ones,
      [value, value + 0.3, value, value + 0.3],
      seededRng(1),
    );
    return { net, steps: 1, lossBefore: 1, lossAfter: 1 };
  });
}

describe('the learner', () => {
  it('learns a residual, beats the prior on outcomes it has not seen, and earns trust', async () => {
    const { clock, counters, champions, learner } = learnerWith(
      new InThreadTrainer({ backend: 'wasm', tfjsNodeGpuDir: '', gpuMemoryLimitMb: 512 }),
    );
    const rng = seededRng(11);
    expect(learner.verdict().verdict).toBe('learning');
    for (let second = 0; second < 160; second++) {
      for (let i = 0; i < 5; i++) learner.observe(drawSample(rng));
      clock.advance(1_000);
      if (second % 5 === 0) await learner.turn();
    }
    const status = learner.status();
    expect(champions.length).toBeGreaterThan(0);
    expect(status.championError as number).toBeLessThan(0.4 * (status.priorError as number));
    expect(learner.verdict()).toMatchObject({ verdict: 'trusted' });
    expect(learner.verdict().p90Coverage).toBeGreaterThan(0.75);
    expect(counters.roundsFailed).toBe(0);
    expect(counters.challengersRejected).toBeGreaterThan(0);
  });

  it('repeats to the byte with the same seed', async () => {
    const nets = [];
    for (let run = 0; run < 2; run++) {
      const { learner } = learnerWith(
        new InThreadTrainer({ backend: 'wasm', tfjsNodeGpuDir: '', gpuMemoryLimitMb: 512 }),
      );
      const rng = seededRng(5);
      for (let i = 0; i < 64; i++) learner.observe(drawSample(rng));
      await learner.turn();
      for (let i = 0; i < 200; i++) learner.observe(drawSample(rng));
      nets.push(learner.net());
    }
    expect(nets[0]).not.toBeNull();
    expect(nets[0]).toEqual(nets[1]);
  });

  it('drops a challenger that is worse, and trains the next from the net in force', async () => {
    const trainer = constantTrainer(2);
    const { counters, champions, learner } = learnerWith(trainer);
    const rng = seededRng(2);
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 150; i++) learner.observe(drawSample(rng));
      await learner.turn();
    }
    expect(counters.challengersRejected).toBe(2);
    expect(champions).toEqual([]);
    expect(learner.net()).toBeNull();
    expect(trainer.requests.map(({ champion }) => champion)).toEqual([null, null, null]);
  });

  it('waits for more samples after each challenger that failed, up to four times as many', async () => {
    const trainer = constantTrainer(2);
    const { learner } = learnerWith(trainer);
    const rng = seededRng(2);
    const waits: number[] = [];
    let since = 0;
    for (let i = 0; i < 800; i++) {
      learner.observe(drawSample(rng));
      await learner.turn();
      since += 1;
      if (trainer.requests.length === waits.length) continue;
      waits.push(since);
      since = 0;
    }
    expect(waits.slice(0, 4)).toEqual([32, 64, 128, 128]);
  });

  it('neither judges nor learns by a law that has been refitted since', async () => {
    const trainer = new FakeTrainer();
    const { learner } = learnerWith(trainer);
    const seenSteps = (steps: number): Sample =>
      sample(featureRow({ [FEATURES.indexOf('lawSamples')]: Math.log1p(steps) }), 1, 1, { atWallMs: 10 * steps });
    for (let i = 0; i < 40; i++) learner.observe(seenSteps(20));
    for (let i = 0; i < 40; i++) learner.observe(seenSteps(100));
    learner.observe(seenSteps(30));
    void learner.turn();
    expect(trainer.requests[0]?.n).toBe(40);
    expect(learner.status().samples.recency).toBe(80);
  });

  it('drops a round with values that are not finite, says so, and goes on', async () => {
    const trainer = constantTrainer(Number.NaN);
    const { counters, learner } = learnerWith(trainer);
    const rng = seededRng(2);
    for (let i = 0; i < 100; i++) learner.observe(drawSample(rng));
    await learner.turn();
    expect(counters.roundsFailed).toBe(1);
    expect(learner.status()).toMatchObject({
      challenger: null,
      alarm: { reason: expect.stringContaining('not finite') },
    });
    for (let i = 0; i < 40; i++) learner.observe(drawSample(rng));
    await learner.turn();
    expect(trainer.requests).toHaveLength(2);
  });

  it('counts a training thread that ended', async () => {
    const { counters, learner } = learnerWith(
      new FakeTrainer(() => Promise.reject(new LodestarError('TRAINER_STALLED', 'no answer'))),
    );
    const rng = seededRng(2);
    for (let i = 0; i < 40; i++) learner.observe(drawSample(rng));
    await learner.turn();
    expect(counters).toMatchObject({ roundsFailed: 1, trainerRestarts: 1 });
  });

  it('falls back to the prior and loses trust when the net in force drifts', async () => {
    const { counters, learner } = learnerWith(constantTrainer(0.8));
    const rng = seededRng(2);
    const around = (at: number): Sample => sample(featureRow({ 6: rng() }), at + 0.05 * (rng() - 0.5), at);
    for (let i = 0; i < 64; i++) learner.observe(around(0.8));
    await learner.turn();
    for (let i = 0; i < 64; i++) learner.observe(around(0.8));
    expect(learner.net()).not.toBeNull();
    expect(learner.verdict().verdict).toBe('trusted');
    for (let i = 0; i < 128; i++) learner.observe(around(0));
    expect(learner.net()).toBeNull();
    expect(counters.championsDropped).toBe(1);
    expect(learner.status().alarm?.reason).toContain('worse than the prior');
  });

  it('survives rows and outcomes of any kind, and learns only from what was observed', async () => {
    const trainer = new FakeTrainer();
    const { counters, learner } = learnerWith(trainer);
    const good = sample(featureRow(), 0.1, 0.1);
    learner.observe(sample(featureRow({ 4: Number.NaN }), 0, 0));
    learner.observe(sample(featureRow({ 4: Number.POSITIVE_INFINITY }), 0, 0));
    learner.observe({ ...good, outcome: { ...good.outcome, status: 'aborted' } });
    learner.observe({ ...good, outcome: { ...good.outcome, status: 'failed', ttftMs: null, tpotMs: null } });
    learner.observe({ ...good, stream: false, outcome: { ...good.outcome, ttftMs: null, tpotMs: null } });
    learner.observe({ ...good, priorTtftMs: 1e-300, outcome: { ...good.outcome, ttftMs: 1e300 } });
    expect(counters).toMatchObject({ samplesInvalid: 2, samplesCensored: 2 });
    expect(learner.status().samples.recency).toBe(1);
    expect(learner.verdict().samples).toBe(2);
    for (let i = 0; i < 40; i++) learner.observe({ ...good, outcome: { ...good.outcome, tpotMs: null } });
    void learner.turn();
    const [request] = trainer.requests as [FitRequest];
    expect(request.n).toBe(41);
    expect(Number.isNaN(request.labels[3] as number)).toBe(true);
    expect([...request.labels].some((value) => !Number.isFinite(value) && !Number.isNaN(value))).toBe(false);
  });

  it('lets go of samples by age', async () => {
    const { clock, learner } = learnerWith(new FakeTrainer());
    const rng = seededRng(2);
    for (let i = 0; i < 20; i++) learner.observe(drawSample(rng));
    clock.advance(OPTIONS.maxAgeMs + 1);
    await learner.turn();
    expect(learner.status().samples.recency).toBe(0);
  });
});
