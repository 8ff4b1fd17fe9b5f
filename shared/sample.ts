import { z } from 'zod';
import { bytesSchema } from './codec.ts';
import { FEATURE_COUNT } from './features.ts';
import { NAME_BOUNDS } from './report.ts';

/**
 * How an attempt ended. `censored` outcomes (aborted, failed) tell only that the latency was longer than what was seen.
 */
export const OUTCOME_STATUSES = ['ok', 'aborted', 'failed', 'timeout'] as const;
export type OutcomeStatus = (typeof OUTCOME_STATUSES)[number];

/** Which part of the state space a decision was made in: trust is kept per regime. */
export const REGIMES = ['idle', 'queued', 'full'] as const;
export type Regime = (typeof REGIMES)[number];

/** The instance could start at once, has prefill queued, or cannot hold the request now. */
export function regimeOf(pendingTokens: number, overTokens: number): Regime {
  if (overTokens > 0) return 'full';
  return pendingTokens > 0 ? 'queued' : 'idle';
}

const count = z.number().int().nonnegative();
const ms = z.number().nonnegative();

/** One attempt as the learner sees it: feature row, decision, outcome. */
export const sampleSchema = z.object({
  instance: z.string().min(1).max(256),
  kind: z.string().max(256),
  model: z.string().max(NAME_BOUNDS.nameChars),
  /** Unix ms of the dispatch, by the entry's clock */
  atWallMs: ms,
  /** FEATURE_COUNT little-endian float32 */
  row: bytesSchema.refine((bytes) => bytes.byteLength === FEATURE_COUNT * 4, `must hold ${FEATURE_COUNT} float32`),
  priorTtftMs: z.number().positive(),
  priorTpotMs: z.number().positive(),
  /** what the table in force predicted; equals the prior when it had no net */
  predictedTtftMs: z.number().positive(),
  predictedTtftP90Ms: z.number().positive(),
  regime: z.enum(REGIMES),
  policy: z.string().max(64),
  reason: z.string().max(128),
  propensity: z.number().min(0).max(1),
  tableVersion: count,
  stream: z.boolean(),
  /** bytes of the canonical prompt text; 0 for token prompts */
  promptBytes: count,
  promptTokens: count,
  /** tokens that the entry believed cached at dispatch */
  hitTokens: count,
  outcome: z.object({
    status: z.enum(OUTCOME_STATUSES),
    /** dispatch → first byte of the answer; null where it cannot be known (not streamed, or failed before) */
    ttftMs: ms.nullable(),
    tpotMs: ms.nullable(),
    e2eMs: ms,
    outputTokens: count,
    /** prompt tokens by the engine's own count; null if it sent no usage */
    promptTokens: count.nullable(),
    cachedTokens: count.nullable(),
  }),
});

export type Sample = z.infer<typeof sampleSchema>;
export type Outcome = Sample['outcome'];

/** The sample's feature row as floats, copied: the bytes of a decoded frame are not aligned. */
export function sampleRow(sample: Sample): Float32Array {
  return new Float32Array(Uint8Array.from(sample.row).buffer);
}
