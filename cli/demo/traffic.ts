import { LodestarError } from '../../shared/errors.ts';
import { linearStepTime } from '../../sim/engine/step-time.ts';
import type { GpuProfile } from '../../sim/engine/gpus.ts';
import { BLOCK_TOKENS } from '../../sim/workloads/mooncake.ts';
import { bundledTrace, pace, readMooncake, type TraceRequest } from '../../sim/workloads/index.ts';

/** Prompts are an eighth of the trace's, so that four small GPUs hold the load. */
export const LENGTH_SCALE = 0.125;
/** Answers are shortened so that two cores can stream them through three processes. */
export const OUTPUT_SCALE = 0.25;
const SEED = 1;
/** Of the emulated engines: tokens in a step. */
const CHUNK_TOKENS = 2048;

/**
 * The requests of one phase: the beginning of the bundled trace at this mean rate (requests/s), the same each time.
 * CONFIG_INVALID if it is too short for them.
 */
export function planTraffic(rate: number, seconds: number): TraceRequest[] {
  const count = Math.round(rate * seconds);
  const { requests } = readMooncake(bundledTrace, {
    seed: SEED,
    lengthScale: LENGTH_SCALE,
    outputScale: OUTPUT_SCALE,
    maxRequests: count,
  });
  if (count > requests.length) {
    throw new LodestarError(
      'CONFIG_INVALID',
      `--rate ${rate} for --seconds ${seconds} needs ${count} requests, and the trace has ${requests.length}: lower one of them`,
    );
  }
  return pace(requests, { rate });
}

/**
 * Mean TTFT in ms if each request met this GPU idle, with every prefix block cached that an earlier request has had:
 * what no router can beat on a fleet whose fastest GPU this is. Sum over chunks of the calibrated step time, plus the
 * engine's front end.
 */
export function floorTtftMs(requests: readonly TraceRequest[], gpu: GpuProfile, frontEndMs: number): number {
  const stepMs = linearStepTime(gpu);
  const blockTokens = BLOCK_TOKENS * LENGTH_SCALE;
  const seen = new Set<number>();
  let sumMs = 0;
  for (const { inputTokens, hashIds } of requests) {
    const known = hashIds.findIndex((id) => !seen.has(id));
    // The last token is always computed.
    let context = Math.min(inputTokens - 1, (known < 0 ? hashIds.length : known) * blockTokens);
    sumMs += frontEndMs;
    while (context < inputTokens) {
      const tokens = Math.min(CHUNK_TOKENS, inputTokens - context);
      sumMs += stepMs({
        prefillTokens: tokens,
        chunks: 1,
        prefillPairs: tokens * (context + tokens / 2),
        decodes: 0,
        decodeContext: 0,
      });
      context += tokens;
    }
    for (const id of hashIds) seen.add(id);
  }
  return sumMs / Math.max(1, requests.length);
}
