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

/** A batch of samples, those that are fit for use. */
export interface SampleBatch {
  batch: number;
  /** samples that the agent had to drop, in all */
  dropped: number;
  samples: Sample[];
  invalid: number;
}

/**
 * Reads a `samples` message. A sample that does not fit is left out and counted: were the whole frame refused, the agent would send it
 * again for ever. Errors: WIRE_MALFORMED if the envelope itself is wrong.
 */
export function parseSampleBatch(raw: unknown): SampleBatch {
  const parsed = envelope.safeParse(raw);
  if (!parsed.success) throw new LodestarError('WIRE_MALFORMED', `bad message: ${firstIssue(parsed.error)}`, { cause: parsed.error });
  const { batch, dropped } = parsed.data;
  const samples: Sample[] = [];
  for (const one of parsed.data.samples) {
    const sample = sampleSchema.safeParse(one);
    if (sample.success) samples.push(sample.data);
  }
  return { batch, dropped, samples, invalid: parsed.data.samples.length - samples.length };
}
