import type { Tf } from '../../../brain/predictor/backend.ts';
import { fitNet, LABEL_COUNT } from '../../../brain/predictor/fit.ts';
import { Forecast } from '../../../brain/predictor/forecast.ts';
import { type Experience, experienceOf, isLabelled } from '../../../brain/replay/experience.ts';
import { FEATURE_COUNT } from '../../../shared/features.ts';
import type { Arrived } from './collect.ts';
import { type Errors, errorsOf, meanErrors } from './errors.ts';

const TRAIN_SHARE = 0.6;
/**
 * Trainings are averaged over these: two nets that differ by their seed alone differ by some hundredths of the log
 * error.
 */
const SEEDS = [1, 2, 3];
const NO_P90 = { ttft: 0, tpot: 0 };

/** What a cell's past was and what its future is to be predicted as. */
export interface Split {
  past: Experience[];
  future: Experience[];
}

/** Past: what had arrived after 60 % of the time. Future: what was dispatched later; what is between is in neither. */
export function split(samples: readonly Arrived[]): Split {
  const usable = samples.flatMap(({ sample, arrivedMs }) => {
    const experience = experienceOf(sample, arrivedMs);
    return typeof experience === 'string' || !isLabelled(experience)
      ? []
      : [{ experience, dispatchedMs: sample.atWallMs }];
  });
  const firstMs = usable[0]?.experience.arrivedMs ?? 0;
  const cutMs = firstMs + TRAIN_SHARE * ((usable.at(-1)?.experience.arrivedMs ?? 0) - firstMs);
  return {
    past: usable.filter(({ experience }) => experience.arrivedMs < cutMs).map(({ experience }) => experience),
    future: usable.filter(({ dispatchedMs }) => dispatchedMs >= cutMs).map(({ experience }) => experience),
  };
}

/** Errors of the prior alone on the future. */
export function priorErrors({ future }: Split): { ttft: Errors; tpot: Errors } {
  const of = (pick: (one: Experience) => number): Errors =>
    errorsOf(future.map((one) => ({ predicted: 0, p90: 0, observed: pick(one) })));
  return { ttft: of(({ ttft }) => ttft), tpot: of(({ tpot }) => tpot) };
}

/**
 * Errors on the future of nets trained on the past without the columns in `left`: a column that is zero in both does
 * not enter.
 */
export function netErrors(
  tf: Tf,
  { past, future }: Split,
  hidden: readonly number[],
  left: readonly number[],
): { ttft: Errors; tpot: Errors } {
  const rows = new Float32Array(past.length * FEATURE_COUNT);
  const labels = new Float32Array(past.length * LABEL_COUNT);
  past.forEach((one, i) => {
    rows.set(without(one.row, left), i * FEATURE_COUNT);
    labels.set([one.ttft, one.tpot], i * LABEL_COUNT);
  });
  const runs = SEEDS.map((seed) => {
    const forecast = new Forecast(fitNet(tf, { champion: null, hidden, rows, labels, n: past.length, seed }).net);
    const said = future.map(({ row }) => forecast.residuals(without(row, left), NO_P90));
    return {
      ttft: errorsOf(
        said.map((one, i) => ({ predicted: one.ttft, p90: one.ttftP90, observed: (future[i] as Experience).ttft })),
      ),
      tpot: errorsOf(
        said.map((one, i) => ({ predicted: one.tpot, p90: one.tpotP90, observed: (future[i] as Experience).tpot })),
      ),
    };
  });
  return { ttft: meanErrors(runs.map(({ ttft }) => ttft)), tpot: meanErrors(runs.map(({ tpot }) => tpot)) };
}

function without(row: Float32Array, left: readonly number[]): Float32Array {
  const copy = row.slice();
  for (const column of left) copy[column] = 0;
  return copy;
}
