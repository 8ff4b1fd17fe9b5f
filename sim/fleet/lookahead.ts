import type { StepBatch } from '../engine/step.ts';
import { ENGINE_BLOCK_TOKENS, type SimRequest } from './plan.ts';
import type { SimDoor } from './door.ts';

/** A sequence as the play-forward sees it: tokens computed, prompt and end, in tokens. */
interface Sequence {
  computed: number;
  prompt: number;
  end: number;
  own: boolean;
}

/** Steps played at most: a request that waits longer than these gets what they add up to. */
const MAX_STEPS = 4000;

/**
 * Time to first token of `request` if it went to the door's engine now and nothing came after it, in ms: the engine's
 * running and waiting requests played forward by vLLM's rules (running first, then waiting in order while they fit,
 * chunked prefill) under its true step law, with their true output lengths. Blocks are counted, not identified; nothing
 * is preempted.
 */
export function lookaheadTtftMs(door: SimDoor, request: SimRequest, nowMs: number, frontEndMs: number): number {
  const { engine, spec } = door;
  const { running, waiting } = engine.scheduler;
  const active: Sequence[] = running.map((one) => ({
    computed: one.computed,
    prompt: one.promptLength,
    end: one.promptLength + one.maxOutput,
    own: false,
  }));
  const queue: Sequence[] = waiting.list().map((one) => ({
    computed: engine.cachedTokens(one.hashes),
    prompt: one.promptLength,
    end: one.promptLength + one.maxOutput,
    own: false,
  }));
  const hit = Math.min(
    engine.cachedTokens(request.blockHashes),
    Math.floor((request.prompt.length - 1) / ENGINE_BLOCK_TOKENS) * ENGINE_BLOCK_TOKENS,
  );
  queue.push({
    computed: hit,
    prompt: request.prompt.length,
    end: request.prompt.length + request.outputTokens,
    own: true,
  });
  let freeTokens = engine.scheduler.kv.pool.freeCount * ENGINE_BLOCK_TOKENS;
  let timeMs = Math.max(0, engine.stepEndsMs - nowMs);
  const batch: StepBatch = { prefillTokens: 0, chunks: 0, prefillPairs: 0, decodes: 0, decodeContext: 0 };
  for (let step = 0; step < MAX_STEPS; step++) {
    clear(batch);
    let left = spec.maxBatchedTokens;
    for (const one of active) {
      const tokens = schedule(batch, one, left);
      left -= tokens;
      freeTokens -= tokens;
    }
    for (let head = queue[0]; head && left > 0 && active.length < spec.maxNumSeqs; head = queue[0]) {
      const fits = head.prompt - head.computed <= freeTokens && !(head.own && timeMs < frontEndMs);
      if (!fits && active.length > 0) break;
      queue.shift();
      active.push(head);
      const tokens = schedule(batch, head, left);
      left -= tokens;
      freeTokens -= tokens;
    }
    timeMs += door.stepTimeMs(batch);
    if (active.some((one) => one.own && one.computed >= one.prompt)) return Math.max(timeMs, frontEndMs);
    for (let i = active.length - 1; i >= 0; i--) {
      const one = active[i] as Sequence;
      if (one.computed < one.end) continue;
      freeTokens += one.end;
      active.splice(i, 1);
    }
  }
  return timeMs;
}

function clear(batch: StepBatch): void {
  batch.prefillTokens = 0;
  batch.chunks = 0;
  batch.prefillPairs = 0;
  batch.decodes = 0;
  batch.decodeContext = 0;
}

/** Computes up to `left` tokens of the sequence in this step; returns how many. */
function schedule(batch: StepBatch, one: Sequence, left: number): number {
  const { computed, prompt } = one;
  const tokens = computed < prompt ? Math.min(prompt - computed, left) : Math.min(1, left);
  if (tokens === 0) return 0;
  if (computed >= prompt) {
    batch.decodes += 1;
    batch.decodeContext += computed;
  } else {
    batch.chunks += 1;
    batch.prefillTokens += tokens;
    batch.prefillPairs += tokens * (computed + tokens / 2);
  }
  one.computed += tokens;
  return tokens;
}
