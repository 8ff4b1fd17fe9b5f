import { LodestarError } from '../../shared/errors.ts';
import { FEATURE_COUNT } from '../../shared/features.ts';
import { RESIDUAL_CLAMP } from '../../shared/predictor/net.ts';
import type { LawState } from '../../shared/predictor/step-law.ts';
import type { Tf } from '../predictor/backend.ts';
import { fitNet, LABEL_COUNT } from '../predictor/fit.ts';
import { Forecast } from '../predictor/forecast.ts';
import { type Figures, figuresOf, type Prediction, quantile } from './figures.ts';
import type { LoggedRequest, RequestLog } from './log-reader.ts';
import { type FitRow, StateModel } from './state.ts';
import { type Observation, observe } from './timeline.ts';

/** What `lodestar fit` says of a log. */
export interface FitReport {
  /** requests used; those that failed are counted beside */
  n: number;
  trainedOn: number;
  testedOn: number;
  /** the predictor: law and net */
  ttft: Figures;
  failed: number;
  format: RequestLog['format'];
  /** requests still in flight at the cut: neither learned from nor tested on */
  leftOut: number;
  /** the step-time law without the net */
  lawAlone: Figures;
  /** median TTFT of the most similar prompt lengths */
  promptSizeAlone: Figures;
  law: LawState;
}

export const TRAIN_SHARE = 0.7;
/** Fewer say nothing of a net of thousands of weights, or of a 90th percentile. */
export const MIN_TRAINED = 100;
export const MIN_TESTED = 30;
/** Rows that the law and the net are fitted to at most, the newest: what the live learner takes. */
const ROUND_ROWS = 8192;
/** Wider than the live learner's: one training must suffice. */
const HIDDEN = [64, 64] as const;
const SEED = 1;
/** Prompts next in length that the baseline looks at. */
const SIMILAR = 101;

/**
 * Learns from the first 70 % of the log's time and predicts the rest. A request is learned from only if it had ended at
 * the cut; one that arrives after it is predicted from what was known at its arrival. Throws LOG_INVALID if either part
 * is too small. `file` is for messages.
 */
export function evaluateLog(tf: Tf, log: RequestLog, file: string): FitReport {
  const observations = observe(log);
  const { training, testing } = splitByTime(observations);
  if (training.length < MIN_TRAINED || testing.length < MIN_TESTED) {
    const has = `${training.length} requests that ended in its first ${100 * TRAIN_SHARE} % and ${testing.length} that arrived later`;
    throw new LodestarError(
      'LOG_INVALID',
      `${file}: holds ${has}; at least ${MIN_TRAINED} and ${MIN_TESTED} are needed, so record for longer`,
    );
  }
  const trained = new Set(training);
  const tested = new Set(testing);
  const model = new StateModel(training.slice(-ROUND_ROWS));
  const rows = model.rows(observations);
  const learned = rows.filter((_, i) => trained.has(observations[i] as Observation));
  const future = rows.filter((_, i) => tested.has(observations[i] as Observation));
  const forecast = new Forecast(train(tf, learned.slice(-ROUND_ROWS)));
  const p90Log = { ttft: Math.max(0, quantile(learned.map(logRatio), 0.9)), tpot: 0 };
  const baseline = promptSizeBaseline(training.map(({ request }) => request));
  return {
    n: log.requests.length,
    trainedOn: training.length,
    testedOn: testing.length,
    ttft: figuresOf(future.map((row) => predict(forecast, row, p90Log))),
    failed: log.failed,
    format: log.format,
    leftOut: log.requests.length - training.length - testing.length,
    lawAlone: figuresOf(future.map((row) => predict(new Forecast(null), row, p90Log))),
    promptSizeAlone: figuresOf(testing.map(({ request }) => baseline(request))),
    law: model.law,
  };
}

/** The cut at 70 % of the time from the first arrival to the last: what had ended before it, and what arrived after. */
export function splitByTime(observations: readonly Observation[]): { training: Observation[]; testing: Observation[] } {
  const firstMs = observations[0]?.atMs ?? 0;
  const cutMs = firstMs + TRAIN_SHARE * ((observations.at(-1)?.atMs ?? 0) - firstMs);
  const cut = observations.findIndex(({ atMs }) => atMs >= cutMs);
  const known = new Set(observations.slice(0, cut + 1).flatMap(({ ended }) => ended));
  return {
    training: observations.filter((_, i) => i < cut && known.has(i)),
    testing: observations.slice(Math.max(0, cut)),
  };
}

function train(tf: Tf, rows: readonly FitRow[]) {
  const features = new Float32Array(rows.length * FEATURE_COUNT);
  const labels = new Float32Array(rows.length * LABEL_COUNT).fill(Number.NaN);
  rows.forEach((row, i) => {
    features.set(row.features, i * FEATURE_COUNT);
    labels[i * LABEL_COUNT] = logRatio(row);
  });
  return fitNet(tf, { champion: null, hidden: HIDDEN, rows: features, labels, n: rows.length, seed: SEED }).net;
}

function logRatio({ ttftMs, priorMs }: FitRow): number {
  return Math.max(-RESIDUAL_CLAMP, Math.min(RESIDUAL_CLAMP, Math.log(ttftMs / priorMs)));
}

function predict(forecast: Forecast, row: FitRow, p90Log: { ttft: number; tpot: number }): Prediction {
  const { ttft, ttftP90 } = forecast.residuals(row.features, p90Log);
  return {
    predictedMs: row.priorMs * Math.exp(ttft),
    predictedP90Ms: row.priorMs * Math.exp(Math.max(ttft, ttftP90)),
    observedMs: row.ttftMs,
  };
}

/** Guesses by the training requests whose prompts are next in length. */
function promptSizeBaseline(training: readonly LoggedRequest[]): (request: LoggedRequest) => Prediction {
  const bySize = training.toSorted((a, b) => a.promptTokens - b.promptTokens);
  return ({ promptTokens, ttftMs }) => {
    let from = 0;
    let to = bySize.length;
    while (from < to) {
      const middle = (from + to) >> 1;
      if ((bySize[middle] as LoggedRequest).promptTokens < promptTokens) from = middle + 1;
      else to = middle;
    }
    const first = Math.max(0, Math.min(from - (SIMILAR >> 1), bySize.length - SIMILAR));
    const similar = bySize.slice(first, first + SIMILAR).map((one) => one.ttftMs);
    return { predictedMs: quantile(similar, 0.5), predictedP90Ms: quantile(similar, 0.9), observedMs: ttftMs };
  };
}
