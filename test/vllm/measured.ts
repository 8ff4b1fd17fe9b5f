import { existsSync, readFileSync } from 'node:fs';
import { z } from 'zod';
import { quantileOf } from '../bench/figure.ts';
import { type Seen, simulate } from './simulate.ts';
import { type Load, loneRequests } from './workload.ts';

const seenSchema = z.object({ index: z.number(), ttftMs: z.number(), e2eMs: z.number(), cachedTokens: z.number() });
/** What was measured on vLLM; `lostRatio`: share of the engine's step time that the machine added between steps. */
const measuredSchema = z.array(
  z.object({
    load: z.string(),
    lone: z.array(seenSchema),
    seen: z.array(seenSchema),
    engine: z.object({ requests: z.number(), decodeMs: z.number(), preemptions: z.number() }),
    lostRatio: z.number(),
    maxLateMs: z.number(),
  }),
);
export type Measured = z.infer<typeof measuredSchema>[number];

/** What a file of the benchmark's holds; nothing if it does not exist yet. */
export function readMeasured(file: string): Measured[] {
  if (!existsSync(file)) return [];
  const parsed = measuredSchema.safeParse(JSON.parse(readFileSync(file, 'utf8')));
  if (!parsed.success) throw new Error(`${file} was not written by this benchmark: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

/**
 * What the server spends on a lone request outside its engine: the median of TTFT above the simulated one without a
 * front end.
 */
export async function fitFrontEnd(load: Load, lone: readonly Seen[]): Promise<number> {
  const { seen } = await simulate(loneRequests(load), 0);
  return quantileOf(
    lone.map((one, at) => one.ttftMs - (seen[at] as Seen).ttftMs),
    0.5,
  );
}
