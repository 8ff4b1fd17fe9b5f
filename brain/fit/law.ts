import { GENERIC_LAW, type LawState } from '../../shared/predictor/step-law.ts';

/** One request's time to first token, and what the step-time law makes it from. */
export interface LawRow {
  /** TTFT, and what of the work ahead was already done when the request arrived */
  totalMs: number;
  ttftMs: number;
  steps: number;
  decoding: number;
  contextTokens: number;
  prefillTokens: number;
  pairs: number;
}

/** Rounds of reweighting; it settles within a few. */
const ROUNDS = 20;
/** Relative error below which rows count by its square. */
const NEAR = 0.03;
/** Rows at their own size that the generic law counts as. */
const SHRINKAGE = 2;

/**
 * Fits c0…c4 and the front-end time to whole requests: totalMs = frontEnd + Σ steps·(c0 + c3·D + c4·ctx) + c1·tokens +
 * c2·pairs. Least absolute relative error, by reweighted least squares with coefficients of at least 0, shrunk a little
 * towards the generic law, since steps and tokens go together.
 */
export function fitLaw(rows: readonly LawRow[]): LawState {
  const x = rows.map(({ steps, decoding, contextTokens, prefillTokens, pairs }) => [
    1,
    steps,
    steps * decoding,
    steps * contextTokens,
    prefillTokens,
    pairs,
  ]);
  const { frontEndMs, c0, c3, c4, c1, c2 } = GENERIC_LAW;
  const start = [frontEndMs, c0, c3, c4, c1, c2];
  let weights = start;
  let errors: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const w = rows.map(({ ttftMs }, i) => 1 / (ttftMs * ttftMs * Math.max(NEAR, errors[i] ?? NEAR)));
    weights = nonNegative(
      x,
      rows.map(({ totalMs }) => totalMs),
      w,
      start,
    );
    errors = rows.map(({ totalMs, ttftMs }, i) => Math.abs(totalMs - dot(x[i] as number[], weights)) / ttftMs);
  }
  const [fitFrontEnd, fit0, fit3, fit4, fit1, fit2] = weights as [number, number, number, number, number, number];
  return {
    frontEndMs: fitFrontEnd,
    c0: fit0,
    c1: fit1,
    c2: fit2,
    c3: fit3,
    c4: fit4,
    c5: 0,
    t0: 0,
    samples: rows.length,
    residualMs: 0,
  };
}

/**
 * Weighted least squares with ridge towards `start`, each weight >= 0, by coordinate descent: the problem is convex and
 * small.
 */
function nonNegative(
  x: readonly number[][],
  y: readonly number[],
  w: readonly number[],
  start: readonly number[],
): number[] {
  const n = start.length;
  const a = Array.from({ length: n }, () => new Float64Array(n));
  const b = new Float64Array(n);
  x.forEach((row, r) => {
    const share = w[r] as number;
    for (let i = 0; i < n; i++) {
      const weighted = share * (row[i] as number);
      for (let j = 0; j < n; j++) (a[i] as Float64Array)[j] = (a[i]?.[j] as number) + weighted * (row[j] as number);
      b[i] = (b[i] as number) + weighted * (y[r] as number);
    }
  });
  const out = [...start];
  for (let i = 0; i < n; i++) {
    const ridge = Math.max(1e-12, ((a[i]?.[i] as number) * SHRINKAGE) / Math.max(1, x.length));
    (a[i] as Float64Array)[i] = (a[i]?.[i] as number) + ridge;
    b[i] = (b[i] as number) + ridge * (start[i] as number);
  }
  for (let pass = 0; pass < 2000; pass++) {
    let moved = 0;
    for (let i = 0; i < n; i++) {
      const row = a[i] as Float64Array;
      const before = out[i] as number;
      const rest = row.reduce((sum, value, j) => (j === i ? sum : sum + value * (out[j] as number)), 0);
      out[i] = Math.max(0, ((b[i] as number) - rest) / (row[i] as number));
      moved = Math.max(moved, Math.abs((out[i] as number) - before) / (Math.abs(before) + 1e-9));
    }
    if (moved < 1e-7) break;
  }
  return out;
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, value, i) => sum + value * (b[i] as number), 0);
}
