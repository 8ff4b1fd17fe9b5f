import { newCounters } from '../../../brain/counters.ts';
import { Learner, type LearnerOptions } from '../../../brain/learn.ts';
import type { Tf } from '../../../brain/predictor/backend.ts';
import { type FitRequest, fitNet } from '../../../brain/predictor/fit.ts';
import { Forecast, type Residuals } from '../../../brain/predictor/forecast.ts';
import { type P90Log, p90Logs } from '../../../brain/predictor/p90.ts';
import { type Experience, experienceOf } from '../../../brain/replay/experience.ts';
import type { Trainer } from '../../../brain/train.ts';
import { defaultConfig } from '../../../shared/config/index.ts';
import { type Env, seededRng, silentLog } from '../../../shared/env.ts';
import type { Arrived } from './collect.ts';
import { type Errors, errorsOf } from './errors.ts';

export interface Progress {
  ttft: Errors;
  tpot: Errors;
  rounds: number;
  accepted: number;
  dropped: number;
  /** processor time of training, s */
  cpuS: number;
}

type Step = { atMs: number; order: number } & ({ kind: 'dispatch' | 'arrival'; arrived: Arrived } | { kind: 'turn' });

const SEED = 1;

/**
 * The brain's own learner lives through the samples again: what it would have said at each dispatch, before anything of
 * the outcome was known.
 */
export async function progress(
  tf: Tf,
  samples: readonly Arrived[],
  changes: Partial<LearnerOptions>,
): Promise<Progress> {
  let nowMs = 0;
  let cpuUs = 0;
  const after = (): never => {
    throw new Error('the learner sets no timers');
  };
  const env: Env = {
    clock: { nowMs: () => nowMs, wallMs: () => nowMs, after, every: after },
    rng: seededRng(SEED),
    log: silentLog,
  };
  const fit = (request: FitRequest): ReturnType<Trainer['fit']> => {
    const before = process.cpuUsage();
    const result = fitNet(tf, request);
    const used = process.cpuUsage(before);
    cpuUs += used.user + used.system;
    return Promise.resolve(result);
  };
  const { learn, trust } = defaultConfig('token-of-a-simulation').brain;
  const counters = newCounters();
  const idle: Pick<Trainer, 'start' | 'close'> = {
    start: () => Promise.reject(new Error('it runs')),
    close: () => Promise.resolve(),
  };
  const learner = new Learner(
    { ...learn, trust, ...changes },
    env,
    { ...idle, fit },
    counters,
    { champion: null, trusted: false },
    () => {},
  );
  const predictor = new Follower(learner);
  const said: { experience: Experience; residuals: Residuals }[] = [];
  for (const step of timeline(samples, learn.roundMs)) {
    nowMs = step.atMs;
    if (step.kind === 'turn') await learner.turn();
    else if (step.kind === 'arrival') predictor.learn(step.arrived);
    else {
      const experience = experienceOf(step.arrived.sample, step.arrived.arrivedMs);
      if (typeof experience !== 'string') said.push({ experience, residuals: predictor.predict(experience) });
    }
  }
  return {
    ttft: errorsOf(
      said.map(({ experience, residuals }) => ({
        predicted: residuals.ttft,
        p90: residuals.ttftP90,
        observed: experience.ttft,
      })),
    ),
    tpot: errorsOf(
      said.map(({ experience, residuals }) => ({
        predicted: residuals.tpot,
        p90: residuals.tpotP90,
        observed: experience.tpot,
      })),
    ),
    rounds: counters.roundsRun,
    accepted: counters.challengersAccepted,
    dropped: counters.championsDropped,
    cpuS: cpuUs / 1e6,
  };
}

/** Predicts as an entry would with the newest table. */
class Follower {
  private readonly learner: Learner;
  private forecast = new Forecast(null);
  private newest: Experience[] = [];
  private p90: P90Log = p90Logs([]);

  constructor(learner: Learner) {
    this.learner = learner;
  }

  learn({ sample, arrivedMs }: Arrived): void {
    this.learner.observe(sample);
    const experience = experienceOf(sample, arrivedMs);
    if (typeof experience === 'string') return;
    this.newest.push(experience);
    if (this.newest.length > 256) this.newest.shift();
  }

  predict({ row }: Experience): Residuals {
    const net = this.learner.net();
    if (net !== this.forecast.net) this.forecast = new Forecast(net);
    if (!net) this.p90 = p90Logs(this.newest);
    return this.forecast.residuals(row, this.p90);
  }
}

/** Dispatches, arrivals and the learner's turns, in order of time. */
function timeline(samples: readonly Arrived[], roundMs: number): Step[] {
  const steps: Step[] = samples.flatMap((arrived): Step[] => [
    { atMs: arrived.sample.atWallMs, order: 0, kind: 'dispatch', arrived },
    { atMs: arrived.arrivedMs, order: 1, kind: 'arrival', arrived },
  ]);
  const times = steps.map(({ atMs }) => atMs);
  const lastMs = times.reduce((a, b) => Math.max(a, b), -Infinity);
  for (let atMs = times.reduce((a, b) => Math.min(a, b), Infinity) + roundMs; atMs < lastMs; atMs += roundMs)
    steps.push({ atMs, order: 2, kind: 'turn' });
  return steps.toSorted((a, b) => a.atMs - b.atMs || a.order - b.order);
}
