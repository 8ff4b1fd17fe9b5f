import type { InstanceReport } from '../shared/instance.ts';
import { GENERIC_LAW, isPossibleLaw, type LawState, typicalTimesMs } from '../shared/predictor/step-law.ts';
import { median } from '../shared/quantile.ts';

/** Step observations that an instance's law must rest on before others start from it. */
const MIN_LAW_SAMPLES = 30;
/**
 * Median residual, relative to the law's shortest step, up to which a fit counts: one that has gone astray must not
 * spread.
 */
const RESIDUAL_MAX_RATIO = 0.5;
const KINDS_MAX = 1024;
/** Relative change of a predicted time that is worth a new table. */
const MOVED_RATIO = 0.02;

const FIELDS = ['c0', 'c1', 'c2', 'c3', 'c4', 'c5', 't0', 'frontEndMs', 'samples', 'residualMs'] as const;

export interface Laws {
  fleet: LawState;
  kinds: Record<string, LawState>;
}

/**
 * Step-time laws that new instances start from: of a kind the median over its instances, coefficient by coefficient,
 * and over the kinds for an unknown one. A kind that has left the fleet keeps its law.
 */
export class LawPriors {
  private laws: Laws;

  constructor(start: Laws = { fleet: GENERIC_LAW, kinds: {} }) {
    this.laws = start;
  }

  current(): Laws {
    return this.laws;
  }

  update(reports: readonly InstanceReport[]): void {
    const byKind = new Map<string, LawState[]>();
    for (const { kind, law } of reports) {
      if (law.samples < MIN_LAW_SAMPLES || law.residualMs > RESIDUAL_MAX_RATIO * law.c0 || !isPossibleLaw(law))
        continue;
      const laws = byKind.get(kind);
      if (laws) laws.push(law);
      else byKind.set(kind, [law]);
    }
    if (byKind.size === 0) return;
    const kinds = { ...this.laws.kinds };
    for (const [kind, laws] of byKind) {
      if (kind in kinds || Object.keys(kinds).length < KINDS_MAX) kinds[kind] = medianLaw(laws);
    }
    this.laws = { kinds, fleet: medianLaw(Object.values(kinds)) };
  }
}

/** True if another kind is known, or a law predicts a time that differs by more than 2 %. */
export function lawsMoved(from: Laws, to: Laws): boolean {
  const names = new Set([...Object.keys(from.kinds), ...Object.keys(to.kinds)]);
  return [...names].some((name) => {
    const a = from.kinds[name];
    const b = to.kinds[name];
    return !a || !b || lawMoved(a, b);
  });
}

/** By what the laws predict, not by coefficients: those of small effect wander without meaning. */
function lawMoved(a: LawState, b: LawState): boolean {
  const after = typicalTimesMs(b);
  return typicalTimesMs(a).some((ms, i) => Math.abs(ms - (after[i] as number)) > MOVED_RATIO * ms);
}

function medianLaw(laws: readonly LawState[]): LawState {
  const law: LawState = { ...GENERIC_LAW };
  for (const field of FIELDS) law[field] = median(laws.map((one) => one[field])) ?? GENERIC_LAW[field];
  return law;
}
