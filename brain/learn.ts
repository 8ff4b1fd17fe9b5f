import type { Env } from '../shared/env.ts';
import { errorMessage, LodestarError } from '../shared/errors.ts';
import type { ResidualNet } from '../shared/predictor/net.ts';
import type { Sample } from '../shared/sample.ts';
import type { Trust } from '../shared/table.ts';
import type { TrustLimits } from '../shared/trust.ts';
import type { Counters } from './counters.ts';
import type { Effort, FitResult } from './predictor/fit.ts';
import { Forecast } from './predictor/forecast.ts';
import { isFiniteNet, scaleMeans } from './predictor/model.ts';
import { type P90Log, p90Logs } from './predictor/p90.ts';
import { type Experience, experienceOf, isLabelled } from './replay/experience.ts';
import { ReplayBuffer, type ReplayLimits } from './replay/index.ts';
import type { Trainer } from './train.ts';
import { TrustWatch } from './trust-watch.ts';
import { ChampionWatch, logError, PairedTrial, priorError } from './validate.ts';

/** Rows of one round at most: what fits into a few seconds of one core. */
export const ROUND_ROWS = 8192;
/**
 * Rounds follow each other and start from the net in force, so that each may be short. Measured:
 * docs/decisions/0008-features-and-learner.md.
 */
const ROUND_EFFORT: Effort = { epochs: 2, steps: 64, learningRate: 3e-3 };
/**
 * Part of its residual that a net may say: what it learned of the last minutes holds only in part for the next ones.
 */
const MEAN_SHARE = 0.8;
/** Each challenger that fails doubles the samples that the next round waits for, so often at most. */
const BACK_OFF_MAX = 2;

export interface LearnerOptions extends ReplayLimits {
  minNewSamples: number;
  hidden: readonly number[];
  trust: TrustLimits;
}

/** What the learner starts from after a restart. */
export interface LearnerStart {
  champion: ResidualNet | null;
  trusted: boolean;
}

interface Challenger {
  forecast: Forecast;
  trial: PairedTrial;
}

/**
 * Learns the residual of the prior while the fleet serves. For each outcome: label it → predict it with the net in
 * force and with the challenger → judge trust → compare the two → remember it. For each round: forget what is too old →
 * train a challenger from the net in force → put it on trial. Nothing is learned from before it was predicted.
 */
export class Learner {
  private readonly options: LearnerOptions;
  private readonly env: Env;
  private readonly trainer: Trainer;
  private readonly counters: Counters;
  private readonly newChampion: () => void;
  private readonly replay: ReplayBuffer;
  private readonly watch = new ChampionWatch();
  private readonly trust: TrustWatch;
  private readonly noNet = new Forecast(null);
  private champion: Forecast;
  private challenger: Challenger | null = null;
  private p90: P90Log = p90Logs([]);
  private fresh = 0;
  /** challengers that failed since a net was last accepted or dropped */
  private failures = 0;
  private fitting = false;
  private closed = false;
  private lastRound: { rows: number; steps: number; lossBefore: number; lossAfter: number; ms: number } | null = null;
  private alarm: { atWallMs: number; reason: string } | null = null;

  /** `newChampion` is called when the net in force has changed. */
  constructor(
    options: LearnerOptions,
    env: Env,
    trainer: Trainer,
    counters: Counters,
    start: LearnerStart,
    newChampion: () => void,
  ) {
    this.options = options;
    this.env = env;
    this.trainer = trainer;
    this.counters = counters;
    this.newChampion = newChampion;
    this.replay = new ReplayBuffer(options, env.rng);
    this.champion = new Forecast(start.champion);
    this.trust = new TrustWatch(options.trust, start.trusted);
  }

  /** Takes an outcome, in order of arrival. */
  observe(sample: Sample): void {
    const experience = this.label(sample, this.env.clock.wallMs());
    // A prediction by a law that is no longer in force says nothing of what routes now.
    if (!experience || this.replay.isOutdated(experience, sample.atWallMs)) return;
    const nowMs = this.env.clock.nowMs();
    const predicted = this.champion.residuals(experience.row, this.p90);
    this.trust.noteChampion(sample, predicted, nowMs);
    this.trust.notePrior(sample, this.noNet.residuals(experience.row, this.p90), nowMs);
    if (!isLabelled(experience)) return;
    this.replay.add(experience);
    this.fresh += 1;
    const championError = logError(predicted, experience);
    const errorOfPrior = priorError(experience);
    this.watch.note(championError, errorOfPrior);
    if (this.challenger) {
      const rival = this.challenger.forecast.residuals(experience.row, this.p90);
      this.trust.noteChallenger(sample, rival, nowMs);
      this.challenger.trial.note({
        champion: championError,
        challenger: logError(rival, experience),
        prior: errorOfPrior,
      });
      this.decide(this.challenger);
    }
    this.dropDrifted();
  }

  /** Takes an outcome from before a restart: remembered, not judged. */
  restore(sample: Sample, arrivedMs: number): void {
    const experience = experienceOf(sample, arrivedMs);
    if (typeof experience === 'string' || !isLabelled(experience)) return;
    if (this.replay.isOutdated(experience, sample.atWallMs)) return;
    this.replay.add(experience);
    this.fresh += 1;
  }

  /** One turn of the loop. Resolves when the round that it started, if any, is over; never rejects. */
  async turn(): Promise<void> {
    this.replay.prune(this.env.clock.wallMs());
    this.p90 = p90Logs(this.replay.newest(256));
    if (this.fitting || this.closed || this.challenger || this.fresh < this.neededSamples()) return;
    this.fitting = true;
    this.fresh = 0;
    try {
      const net = await this.round();
      if (net) this.challenger = { forecast: new Forecast(net), trial: new PairedTrial() };
    } catch (error) {
      if (this.closed) return;
      this.counters.roundsFailed += 1;
      if (error instanceof LodestarError && error.code === 'TRAINER_STALLED') this.counters.trainerRestarts += 1;
      this.raise(`training round failed: ${errorMessage(error)}`);
    } finally {
      this.fitting = false;
    }
  }

  /** The net in force; null: the prior alone. */
  net(): ResidualNet | null {
    return this.champion.net;
  }

  verdict(): Trust {
    return this.trust.verdict(this.env.clock.nowMs());
  }

  /** p90 / mean by what was observed, for tables without a net. */
  p90Factor(): { ttft: number; tpot: number } {
    return { ttft: Math.exp(this.p90.ttft), tpot: Math.exp(this.p90.tpot) };
  }

  status() {
    const errors = this.watch.errors();
    const {
      roundsRun,
      roundsFailed,
      challengersAccepted,
      challengersRejected,
      championsDropped,
      samplesReceived,
      samplesCensored,
      samplesInvalid,
    } = this.counters;
    return {
      rounds: roundsRun,
      failed: roundsFailed,
      accepted: challengersAccepted,
      rejected: challengersRejected,
      dropped: championsDropped,
      training: this.fitting,
      samples: {
        received: samplesReceived,
        censored: samplesCensored,
        invalid: samplesInvalid,
        ...this.replay.sizes(),
      },
      lastRound: this.lastRound,
      champion: this.champion.net ? ('net' as const) : ('prior' as const),
      championError: errors?.champion ?? null,
      priorError: errors?.prior ?? null,
      challenger: this.challenger?.trial.summary() ?? null,
      alarm: this.alarm,
    };
  }

  /** No further round starts; errors of one that is cut off are not raised. */
  close(): void {
    this.closed = true;
  }

  /** Where nets no longer get better, training rests: the next attempt has more that is new. */
  private neededSamples(): number {
    return this.options.minNewSamples * 2 ** Math.min(BACK_OFF_MAX, this.failures);
  }

  private label(sample: Sample, arrivedMs: number): Experience | null {
    const experience = experienceOf(sample, arrivedMs);
    if (typeof experience !== 'string') return experience;
    if (experience === 'censored') this.counters.samplesCensored += 1;
    else this.counters.samplesInvalid += 1;
    return null;
  }

  private async round(): Promise<ResidualNet | null> {
    const data = this.replay.draw(ROUND_ROWS);
    if (data.n < this.options.minNewSamples) return null;
    const startedMs = this.env.clock.nowMs();
    const seed = Math.floor(this.env.rng() * 2 ** 32);
    const result = await this.trainer.fit({
      ...data,
      champion: this.champion.net,
      hidden: this.options.hidden,
      seed,
      effort: ROUND_EFFORT,
    });
    this.check(result);
    const { net, steps, lossBefore, lossAfter } = result;
    this.counters.roundsRun += 1;
    this.lastRound = { rows: data.n, steps, lossBefore, lossAfter, ms: this.env.clock.nowMs() - startedMs };
    this.env.log.debug(this.lastRound, 'training round finished');
    return scaleMeans(net, MEAN_SHARE);
  }

  private check(result: FitResult): void {
    if (!isFiniteNet(result.net) || !Number.isFinite(result.lossAfter)) {
      throw new LodestarError('ROUND_DIVERGED', 'the trained net holds values that are not finite');
    }
  }

  private decide({ forecast, trial }: Challenger): void {
    const verdict = trial.verdict();
    if (verdict === 'undecided') return;
    const { pairs, gain } = trial.summary();
    this.challenger = null;
    if (verdict === 'reject') {
      this.failures += 1;
      this.counters.challengersRejected += 1;
      this.trust.dropChallenger();
      this.env.log.debug({ pairs, gain }, 'challenger dropped: no better than the net in force');
      return;
    }
    this.failures = 0;
    this.counters.challengersAccepted += 1;
    this.champion = forecast;
    this.watch.reset(trial.pairs());
    this.trust.promote();
    this.env.log.info({ pairs, gain }, 'challenger is better on live outcomes and takes over');
    this.newChampion();
  }

  private dropDrifted(): void {
    if (!this.champion.net || !this.watch.worseThanPrior()) return;
    this.failures = 0;
    this.counters.championsDropped += 1;
    this.raise('the net in force has become worse than the prior and is dropped');
    this.champion = new Forecast(null);
    this.challenger = null;
    this.watch.reset([]);
    this.trust.demote();
    this.newChampion();
  }

  private raise(reason: string): void {
    this.alarm = { atWallMs: this.env.clock.wallMs(), reason };
    this.env.log.error(reason);
  }
}
