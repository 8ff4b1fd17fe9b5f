import { expect, it } from 'vitest';
import { LawPriors, lawsMoved } from '../../brain/law-priors.ts';
import { GENERIC_LAW, type LawState } from '../../shared/predictor/step-law.ts';
import { report } from './fixtures.ts';

function law(more: Partial<LawState>): LawState {
  return { ...GENERIC_LAW, samples: 100, ...more };
}

it('takes the median over the instances of a kind, and over kinds for the fleet', () => {
  const laws = new LawPriors();
  laws.update([
    report('a', 'x', { kind: 'A30', law: law({ c0: 20 }) }),
    report('b', 'x', { kind: 'A30', law: law({ c0: 22 }) }),
    report('c', 'x', { kind: 'A30', law: law({ c0: 90 }) }),
    report('d', 'x', { kind: 'L20', law: law({ c0: 10 }) }),
    report('e', 'x', { kind: 'L20', law: law({ c0: 1, samples: 29 }) }),
    report('f', 'x', { kind: 'L20', law: law({ c0: 0.01, residualMs: 10 }) }),
  ]);
  expect(laws.current().kinds['A30']?.c0).toBe(22);
  expect(laws.current().kinds['L20']?.c0).toBe(10);
  expect(laws.current().fleet.c0).toBe(10);
});

it('takes no law that no engine has, though it claims to be sure', () => {
  const laws = new LawPriors();
  const sure = { samples: 1e12, residualMs: 0 };
  laws.update([
    report('a', 'x', { kind: 'A30', law: law({ c0: 20 }) }),
    report('b', 'x', { kind: 'free', law: law({ ...sure, c0: 0.1, c1: 0, c2: 0, c3: 0, c4: 0, frontEndMs: 0 }) }),
    report('c', 'x', { kind: 'slow', law: law({ ...sure, c0: 1e12 }) }),
    report('d', 'x', { kind: 'dear', law: law({ ...sure, c1: 1e9 }) }),
  ]);
  expect(Object.keys(laws.current().kinds)).toEqual(['A30']);
  expect(laws.current().fleet.c0).toBe(20);
});

it('starts generic, and keeps a kind that has left', () => {
  const laws = new LawPriors();
  laws.update([report('a', 'x', { law: law({ c0: 5, samples: 3 }) })]);
  expect(laws.current()).toEqual({ fleet: GENERIC_LAW, kinds: {} });
  const before = new LawPriors({ fleet: GENERIC_LAW, kinds: { A30: law({ c0: 7 }) } });
  before.update([report('a', 'x', { kind: 'L20', law: law({ c0: 9 }) })]);
  expect(Object.keys(before.current().kinds)).toEqual(['A30', 'L20']);
});

it('moves when it predicts times that differ by more than 2 %, not when a coefficient without effect wanders', () => {
  const from = { fleet: GENERIC_LAW, kinds: { A30: law({}) } };
  expect(lawsMoved(from, { ...from, kinds: { A30: law({ c3: GENERIC_LAW.c3 * 1.1 }) } })).toBe(false);
  expect(lawsMoved(from, { ...from, kinds: { A30: law({ c1: GENERIC_LAW.c1 * 1.1 }) } })).toBe(true);
  expect(lawsMoved(from, { ...from, kinds: { ...from.kinds, L20: law({}) } })).toBe(true);
});
