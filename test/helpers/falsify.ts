import type { Sample } from '../../shared/sample.ts';
import type { Tamper } from '../../sim/fleet/tamper.ts';

/** Values that no clock can have shown, in turn. */
const WILD = [NaN, 0, Infinity, 1e12, -5, 1e-9];
/** Laws that no engine has: the first cannot be parsed, the rest are valid numbers. */
const WILD_LAWS = [
  { c0: NaN },
  { c0: 0, c1: 0, c2: 0, c3: 0, c4: 0, frontEndMs: 0 },
  { c0: 1e12 },
  { c1: 1e9, samples: 1e12 },
  { c0: 1e-9, c1: 1e-12, residualMs: 0 },
  { c4: -1 },
];

/** From `fromMs` on, the outcomes that `agent` sends carry values that nobody can have measured. */
export function poisonedSamples(agent: string, fromMs: number): Tamper {
  let turn = 0;
  return {
    samples: (from, samples, nowMs) => {
      if (from !== agent || nowMs < fromMs) return samples;
      return samples.map((sample) => {
        const value = WILD[turn++ % WILD.length] as number;
        return {
          ...sample,
          outcome: {
            ...sample.outcome,
            ttftMs: value,
            tpotMs: value,
            e2eMs: value,
            outputTokens: turn % 5 === 0 ? 1e15 : sample.outcome.outputTokens,
          },
        };
      });
    },
  };
}

/** From `fromMs` on, the door of `instance` reports laws that no engine has. */
export function absurdReports(instance: string, fromMs: number): Tamper {
  let turn = 0;
  return {
    report: (report, nowMs) => {
      if (report.instance !== instance || nowMs < fromMs) return report;
      return { ...report, law: { ...report.law, ...WILD_LAWS[turn++ % WILD_LAWS.length] } };
    },
  };
}

/** From `fromMs` on, `agent` claims `factor` times the latencies that it saw. */
export function lyingEntry(agent: string, factor: number, fromMs: number): Tamper {
  const times = (ms: number | null): number | null => (ms === null ? null : ms * factor);
  return {
    samples: (from, samples, nowMs) => {
      if (from !== agent || nowMs < fromMs) return samples;
      return samples.map(({ outcome, ...rest }) => ({
        ...rest,
        outcome: {
          ...outcome,
          ttftMs: times(outcome.ttftMs),
          tpotMs: times(outcome.tpotMs),
          e2eMs: outcome.e2eMs * factor,
        },
      }));
    },
  };
}

/** From `fromMs` on, each of `agent`'s samples carries the outcome of an earlier one. */
export function permutedLabels(agent: string, fromMs: number): Tamper {
  const kept: Sample['outcome'][] = [];
  return {
    samples: (from, samples, nowMs) => {
      if (from !== agent || nowMs < fromMs) return samples;
      return samples.map((sample) => {
        kept.push(sample.outcome);
        return { ...sample, outcome: kept.length > 17 ? (kept.shift() as Sample['outcome']) : sample.outcome };
      });
    },
  };
}
