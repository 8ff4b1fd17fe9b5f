import type { Clock, Rng } from '../../shared/env.ts';
import type { GpuProfile } from './gpus.ts';
import type { StepBatch } from './step.ts';
import { linearStepTime, type StepCoefficients, type StepTimeModel, withNoise } from './step-time.ts';

/**
 * What the simulated GPUs obey: the calibrated formula itself, a law of another form, or that law with the disturbances
 * of a real machine.
 */
export const STEP_LAWS = ['linear', 'roofline', 'rough'] as const;
export type StepLawName = (typeof STEP_LAWS)[number];

/** Part of c0 that is host time and kernel launches, which no overlap hides; the rest reads the weights. */
const HOST_SHARE = 0.1;
/** Matrix products reach this part of the speed that c1 stands for, at best. */
const PEAK_EFFICIENCY = 0.9;
/**
 * Tokens at which they reach half of it, as a part of c0/c1 (the tokens whose computing lasts as long as reading the
 * weights).
 */
const HALF_SPEED_SHARE = 0.3;
/** Query tokens of a chunk at which attention over its context runs at half speed. */
const ATTENTION_HALF_TOKENS = 32;
/** How much dearer decode attention is beside a prefill, where measured: 1.4 to 2 times. */
const MIXED_MIN = 1.4;
const MIXED_SPAN = 0.6;

const NOISE_SIGMA = 0.05;
const STALL_PROBABILITY = 0.0005;
const STALL_MIN_MS = 50;
const STALL_SPAN_MS = 250;
/** The hottest a GPU gets: steps last this much longer. */
const DRIFT_MAX = 0.15;
const DRIFT_MIN_PERIOD_MS = 150_000;
const DRIFT_PERIOD_SPAN_MS = 450_000;

/**
 * The step-time model of one instance on `gpu`. Draws the instance's own traits from `rng` at once; `rough` draws on
 * with each step and reads `clock`.
 */
export function makeStepTime(law: StepLawName, gpu: GpuProfile, rng: Rng, clock: Clock): StepTimeModel {
  if (law === 'linear') return linearStepTime(gpu);
  const roofline = rooflineStepTime(gpu, rng);
  return law === 'roofline' ? roofline : withDisturbances(roofline, rng, clock);
}

/**
 * Step time in ms from a roofline for each kind of kernel, with the GPU's own coefficients. P, D, pairs, context and
 * chunks as in `StepBatch`, T = P + D:
 *
 *   products  = max(0.9·c0, c1·max(0, T − T0) / e(T))             weights to read, or tokens to compute
 *   e(T)      = 0.9·T / (T + 0.3·c0/c1)                           few tokens use the GPU badly
 *   prefill   = c2·pairs·(1 + 32/q),  q = P / chunks              small chunks attend badly
 *   decode    = c3·padded(D) + c4·context·m                       m = 1, or the instance's own 1.4…2 if P > 0 (1 + c5/c4 if the GPU names c5)
 *   step      = 0.1·c0 + products + prefill + decode
 *
 * A step without prefill runs as a CUDA graph, so its D is padded to the next captured size; with T0 or c5 given, c3
 * counts chunks too, as in the linear law. Over common batches the mean ratio to the linear law lies near 1; single
 * steps differ by up to a third.
 */
export function rooflineStepTime(gpu: StepCoefficients, rng: Rng): StepTimeModel {
  const { c0, c1, c2, c3, c4, T0, c5 } = gpu;
  const hostMs = HOST_SHARE * c0;
  const weightsMs = (1 - HOST_SHARE) * c0;
  const halfTokens = c1 > 0 ? (HALF_SPEED_SHARE * c0) / c1 : 0;
  const free = T0 ?? 0;
  const chunkCost = T0 === undefined && c5 === undefined ? 0 : c3;
  const drawn = MIXED_MIN + MIXED_SPAN * rng();
  const mixed = c5 === undefined || c4 === 0 ? c4 * drawn : c4 + c5;
  return (b: StepBatch) => {
    const tokens = b.prefillTokens + b.decodes;
    const computeMs = tokens > free ? (c1 * (tokens - free) * (tokens + halfTokens)) / (PEAK_EFFICIENCY * tokens) : 0;
    const productsMs = Math.max(weightsMs, computeMs);
    if (b.prefillTokens === 0) return hostMs + productsMs + c3 * paddedDecodes(b.decodes) + c4 * b.decodeContext;
    const attentionMs = c2 * b.prefillPairs * (1 + (ATTENTION_HALF_TOKENS * b.chunks) / b.prefillTokens);
    return hostMs + productsMs + attentionMs + c3 * b.decodes + chunkCost * b.chunks + mixed * b.decodeContext;
  };
}

/**
 * The next batch size for which vLLM captures a CUDA graph: 1, 2, 4, then steps of 8 to 256 and of 16 to 512; larger
 * batches are not padded.
 */
export function paddedDecodes(decodes: number): number {
  if (decodes <= 2) return decodes;
  if (decodes <= 4) return 4;
  if (decodes <= 256) return Math.ceil(decodes / 8) * 8;
  return decodes <= 512 ? Math.ceil(decodes / 16) * 16 : decodes;
}

/**
 * Adds what machines do: each step times lognormal noise (sigma 0.05, mean 1) and the thermal drift, and in one step of
 * 2,000 a stall of 50…300 ms (garbage collection, another process, a page fault).
 */
function withDisturbances(model: StepTimeModel, rng: Rng, clock: Clock): StepTimeModel {
  const drift = thermalDrift(rng);
  const noisy = withNoise(model, NOISE_SIGMA, rng);
  return (batch) => {
    const stallMs = rng() < STALL_PROBABILITY ? STALL_MIN_MS + STALL_SPAN_MS * rng() : 0;
    return noisy(batch) * drift(clock.nowMs()) + stallMs;
  };
}

/**
 * Factor 1…1.15 by which a hot GPU slows down, at a time: 1 + 0.15·(½ + ¼·sin + ¼·sin), two periods of 2.5 to 10
 * minutes with phases of their own. A function of time, so that it does not matter how often it is asked.
 */
export function thermalDrift(rng: Rng): (nowMs: number) => number {
  const wave = (): ((nowMs: number) => number) => {
    const perMs = (2 * Math.PI) / (DRIFT_MIN_PERIOD_MS + DRIFT_PERIOD_SPAN_MS * rng());
    const phase = 2 * Math.PI * rng();
    return (nowMs) => Math.sin(phase + perMs * nowMs);
  };
  const one = wave();
  const other = wave();
  return (nowMs) => 1 + DRIFT_MAX * (0.5 + 0.25 * one(nowMs) + 0.25 * other(nowMs));
}
