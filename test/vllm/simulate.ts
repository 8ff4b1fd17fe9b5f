import { Engine } from '../../sim/engine/engine.ts';
import { linearStepTime } from '../../sim/engine/step-time.ts';
import { SimClock } from '../../sim/fleet/clock.ts';
import { ENGINE_BLOCK_TOKENS, type SimRequest } from '../../sim/fleet/plan.ts';
import { kvTokens, type Load } from './workload.ts';

/** What a client saw of one request of a load; the same of vLLM and of the simulation. */
export interface Seen {
  index: number;
  ttftMs: number;
  e2eMs: number;
  cachedTokens: number;
}

export interface Simulated {
  /** in order of arrival */
  seen: Seen[];
  preemptions: number;
}

/** The load through one simulated engine with the linear step law, set up as a door of `lodestar sim` sets it up. */
export async function simulate(load: Load, frontEndMs: number): Promise<Simulated> {
  const { gpu, blocks, maxNumSeqs, maxBatchedTokens, asyncScheduling, requests } = load;
  const clock = new SimClock();
  const engine = new Engine({
    clock,
    stepTime: linearStepTime(gpu),
    frontEndMs,
    blockCount: blocks,
    blockSize: ENGINE_BLOCK_TOKENS,
    maxNumSeqs,
    maxBatchedTokens,
    maxModelLen: kvTokens(load),
    asyncScheduling,
    sample: () => 0,
  });
  const seen: Seen[] = [];
  for (const request of requests)
    clock.after(request.arrivalMs, () => submit(engine, clock, request, (one) => seen.push(one)));
  await clock.run(Infinity, () => seen.length === requests.length);
  return { seen: seen.toSorted((a, b) => a.index - b.index), preemptions: engine.scheduler.preemptionCount };
}

function submit(engine: Engine, clock: SimClock, request: SimRequest, done: (seen: Seen) => void): void {
  const { index, prompt, outputTokens, blockHashes } = request;
  const startMs = clock.nowMs();
  let ttftMs = NaN;
  engine.submit(
    { id: String(index), prompt, maxOutput: outputTokens, promptHashes: blockHashes },
    {
      onToken: (one) => {
        if (one.outputCount === 1) ttftMs = clock.nowMs() - startMs;
      },
      onFinish: (one) => done({ index, ttftMs, e2eMs: clock.nowMs() - startMs, cachedTokens: one.hitTokens }),
    },
  );
}
