import { describe, expect, it } from 'vitest';
import { ChampionWatch, logError, PAIRS_MAX, PAIRS_MIN, PairedTrial, priorError } from '../../brain/validate.ts';
import { seededRng } from '../../shared/env.ts';

function trialOf(n: number, gain: (i: number) => number): ReturnType<PairedTrial['verdict']> {
  const trial = new PairedTrial();
  for (let i = 0; i < n; i++) {
    const error = 0.5;
    trial.note({ champion: error, challenger: error - gain(i), prior: 1 });
  }
  return trial.verdict();
}

describe('a challenger', () => {
  const rng = seededRng(3);
  const noise = Array.from({ length: PAIRS_MAX }, () => rng() - 0.5);

  it('is not judged before enough outcomes', () => {
    expect(trialOf(PAIRS_MIN - 1, () => 1)).toBe('undecided');
  });

  it('wins if it is better beyond chance, and not by chance or by a hair', () => {
    expect(trialOf(PAIRS_MIN, (i) => 0.3 + 0.2 * (noise[i] as number))).toBe('accept');
    expect(trialOf(PAIRS_MAX, (i) => (noise[i] as number) + 0.01)).toBe('reject');
    expect(trialOf(PAIRS_MAX, () => 0.001)).toBe('reject');
  });

  it('loses at once if it is worse, and when equal', () => {
    expect(trialOf(PAIRS_MIN, () => -0.1)).toBe('reject');
    expect(trialOf(PAIRS_MIN, () => 0)).toBe('reject');
  });
});

describe('a challenger that is better than the net in force', () => {
  it('loses if it is not better than the prior alone', () => {
    const trial = new PairedTrial();
    for (let i = 0; i < PAIRS_MIN; i++) trial.note({ champion: 0.9, challenger: 0.6, prior: 0.5 });
    expect(trial.verdict()).toBe('reject');
    expect(trial.pairs()).toHaveLength(PAIRS_MIN);
    expect(trial.pairs()[0]).toEqual({ champion: 0.6, prior: 0.5 });
  });
});

describe('errors', () => {
  it('leave out what was not observed', () => {
    const predicted = { ttft: 0.5, ttftP90: 9, tpot: -0.5, tpotP90: 9 };
    expect(logError(predicted, { ttft: 0.2, tpot: Number.NaN })).toBeCloseTo(0.3);
    expect(logError(predicted, { ttft: 0.2, tpot: -0.1 })).toBeCloseTo(0.7);
    expect(priorError({ ttft: -0.2, tpot: 0.1 })).toBeCloseTo(0.3);
  });
});

describe('the watch over the net in force', () => {
  it('tells a net that has become worse than the prior', () => {
    const watch = new ChampionWatch();
    for (let i = 0; i < 100; i++) watch.note(0.2, 0.5);
    expect(watch.worseThanPrior()).toBe(false);
    for (let i = 0; i < 128; i++) watch.note(0.9 + (i % 3) / 10, 0.5);
    expect(watch.worseThanPrior()).toBe(true);
    expect(watch.errors()?.prior).toBeCloseTo(0.5);
  });
});
