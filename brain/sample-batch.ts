import { z } from 'zod';
import { LodestarError } from '../shared/errors.ts';
import { MAX_SAMPLES_PER_FRAME } from '../shared/protocol.ts';
import { type Sample, sampleSchema } from '../shared/sample.ts';
import { firstIssue } from '../shared/table.ts';

const envelope = z.object({
  t: z.literal('samples'),
  batch: z.number().int().nonnegative(),
  dropped: z.number().int().nonnegative(),
  samples: z.array(z.unknown()).max(MAX_SAMPLES_PER_FRAME),
});

/**
 * No request lasts longer than this, and none counts more tokens: what claims to is a broken clock or counter, or a
 * lie.
 */
const MAX_TIME_MS = 86_400_000;
const MAX_TOKENS = 2 ** 24;
/** Clocks that are read a moment apart may disagree by this much. */
const SLACK_MS = 1;

/** A batch of samples, those that are fit for use. */
export interface SampleBatch {
  batch: number;
  /** samples that the agent had to drop, in all */
  dropped: number;
  samples: Sample[];
  invalid: number;
  /** what is wrong with the first of those; undefined: nothing is */
  problem?: string | undefined;
}

/**
 * Reads a `samples` message. A sample that does not fit is left out and counted: were the whole frame refused, the
 * agent would send it again for ever. Errors: WIRE_MALFORMED if the envelope itself is wrong.
 */
export function parseSampleBatch(raw: unknown): SampleBatch {
  const parsed = envelope.safeParse(raw);
  if (!parsed.success)
    throw new LodestarError('WIRE_MALFORMED', `bad message: ${firstIssue(parsed.error)}`, { cause: parsed.error });
  const { batch, dropped } = parsed.data;
  const samples: Sample[] = [];
  let problem: string | undefined;
  for (const one of parsed.data.samples) {
    const sample = sampleSchema.safeParse(one);
    if (sample.success && isPossible(sample.data)) samples.push(sample.data);
    else
      problem ??= `a sample: ${sample.success ? 'holds a time or a count that no attempt has' : firstIssue(sample.error)}`;
  }
  return { batch, dropped, samples, invalid: parsed.data.samples.length - samples.length, problem };
}

/**
 * False for values that the schema lets pass and no attempt can have shown: they would be learned from like any other.
 */
function isPossible({ outcome, stream, priorTtftMs, priorTpotMs, predictedTtftMs, promptTokens }: Sample): boolean {
  const { ttftMs, tpotMs, e2eMs, outputTokens } = outcome;
  const times = [priorTtftMs, priorTpotMs, predictedTtftMs, ttftMs ?? 0, tpotMs ?? 0, e2eMs];
  if (times.some((ms) => ms > MAX_TIME_MS)) return false;
  if (
    [outputTokens, promptTokens, outcome.promptTokens ?? 0, outcome.cachedTokens ?? 0].some(
      (tokens) => tokens > MAX_TOKENS,
    )
  )
    return false;
  // Of an answer that is not streamed, TTFT is put together from the engine's own clock and estimates.
  return ttftMs === null || !stream || (ttftMs > 0 && ttftMs <= e2eMs + SLACK_MS);
}
