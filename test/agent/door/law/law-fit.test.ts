import { describe, expect, test } from 'vitest';
import { LawFit } from '../../../../agent/door/law/law-fit.ts';
import { GENERIC_LAW } from '../../../../shared/predictor/step-law.ts';
import { EngineDoor } from '../../../helpers/engine-door.ts';

const GPUS = ['A30', 'L20', 'A100'];

function expectWithin(share: number, ratios: Record<string, number>): void {
  for (const [step, ratio] of Object.entries(ratios))
    expect(Math.abs(ratio - 1), `${step}: ${ratio}`).toBeLessThanOrEqual(share);
}

describe.each(GPUS)('step law of an %s, read off the tokens that pass the door', (gpu) => {
  test.each([1, 2, 3])('is within a tenth after 30 s of mixed traffic, seed %i', (seed) => {
    const door = new EngineDoor(gpu, { noise: 0.02, seed });
    door.traffic(30_000, 5, door.sendMixed);
    expectWithin(0.1, door.stepRatios());
  });

  test('is within 15 % when no two requests ever met', () => {
    const door = new EngineDoor(gpu, { noise: 0.02 });
    door.traffic(
      40_000,
      1,
      () => door.ledger.inFlight === 0 && door.send(door.prompt(60 + Math.floor(door.rng() * 1500)), 20),
    );
    expectWithin(0.15, door.stepRatios());
  });

  test('follows throttling to a third of the speed within 10 s, and back', () => {
    const door = new EngineDoor(gpu, { noise: 0.02, seed: 4 });
    door.traffic(30_000, 2, door.sendMixed);
    door.engine.slowFactor = 3;
    door.traffic(10_000, 1, door.sendMixed);
    expectWithin(0.15, door.stepRatios(3));
    door.traffic(20_000, 1, door.sendMixed);
    door.engine.slowFactor = 1;
    door.traffic(10_000, 1, door.sendMixed);
    expectWithin(0.15, door.stepRatios(1));
  });
});

describe('LawFit', () => {
  test('without an observation it is its prior, and a better prior takes its place', () => {
    const fit = new LawFit(GENERIC_LAW);
    expect(fit.state()).toEqual(GENERIC_LAW);
    fit.setPrior({ ...GENERIC_LAW, c0: 12, frontEndMs: 5 });
    expect(fit.state()).toMatchObject({ c0: 12, frontEndMs: 5 });
    fit.reset(GENERIC_LAW);
    expect(fit.state()).toEqual(GENERIC_LAW);
  });

  test('single wild steps are not believed', () => {
    const fit = new LawFit(GENERIC_LAW);
    for (let i = 0; i < 200; i++) fit.addDecodeStep(20 + (i % 8) * 0.1, 1 + (i % 8), 1000 * (1 + (i % 8)));
    const before = fit.state();
    for (let i = 0; i < 100; i++) {
      fit.addDecodeStep(i % 5 === 0 ? 300 : 20 + (i % 8) * 0.1, 1 + (i % 8), 1000 * (1 + (i % 8)));
    }
    expect(Math.abs(fit.state().c0 - before.c0)).toBeLessThan(0.5);
  });

  test('steps that agree on another speed are believed within a few, with prefill in them or not', () => {
    for (const factor of [3, 1 / 3]) {
      const fit = new LawFit(GENERIC_LAW);
      for (let i = 0; i < 200; i++) {
        fit.addDecodeStep(20 + (i % 8) * 0.1, 1 + (i % 8), 1000 * (1 + (i % 8)));
        fit.addPrefillStep(70 + (i % 8) * 0.1, 1 + (i % 8), 1000 * (1 + (i % 8)), 500, 125_000);
      }
      const before = fit.state();
      fit.addDecodeStep(factor * 20.4, 5, 5000);
      for (let i = 0; i < 4; i++) fit.addPrefillStep(factor * 70.4, 5, 5000, 500, 125_000);
      expect(fit.state().c0 / before.c0).toBeCloseTo(factor, 1);
      expect(fit.state().c1 / before.c1).toBeCloseTo(factor, 1);
    }
  });

  test('steps that disagree on a speed are not, for a while', () => {
    const fit = new LawFit(GENERIC_LAW);
    for (let i = 0; i < 200; i++) fit.addDecodeStep(20 + (i % 8) * 0.1, 1 + (i % 8), 1000 * (1 + (i % 8)));
    const before = fit.state().c0;
    for (const ms of [33, 90, 47, 140, 30, 70, 45, 110, 36, 60, 150]) fit.addDecodeStep(ms, 5, 5000);
    expect(fit.state().c0).toBeCloseTo(before, 1);
  });

  test('coefficients are finite and never negative, whatever is fed in', () => {
    const fit = new LawFit(GENERIC_LAW);
    for (let i = 0; i < 500; i++) {
      fit.addDecodeStep(1 + ((i * 7919) % 400), (i * 31) % 40, (i * 104_729) % 100_000);
      fit.addPrefillStep(
        1 + ((i * 6007) % 900),
        (i * 17) % 40,
        (i * 7) % 9000,
        (i * 101) % 2048,
        (i * 10_007) % 4_000_000,
      );
      fit.addFrontEnd(((i * 37) % 900) - 300);
      for (const value of Object.values(fit.state())) {
        expect(Number.isFinite(value)).toBe(true);
        expect(value).toBeGreaterThanOrEqual(0);
      }
    }
  });
});
