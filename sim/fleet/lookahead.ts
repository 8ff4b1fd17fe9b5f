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
 * Time to first token of `request` if it went to the door's engine now and nothing came after it, in ms: the engine's running and waiting requests played
 * forward by vLLM's rules (running first, then waiting in order while they fit, chunked prefill) under its true step law, with their true output lengths. Blocks are
 * counted, not identified; nothing is preempted.
 */
export function lookaheadTtftMs(door: SimDoor, request: SimRequest, nowMs: number, frontEndMs: number): number {
  const { engine, spec } = door;
  const { running, waiting } = engine.scheduler;
  const active: Sequence[] = running.map((one) => ({ computed: one.computed, prompt: one.promptLength, end: one.promptLength + one.maxOutput, own: false }));
  const queue: Sequence[] = waiting.list().map((one) => ({ computed: engine.cachedTokens(one.hashes), prompt: one.promptLength, end: one.promptLength + one.maxOutput, own: false }));
  const hit = Math.min(engine.cachedTokens(request.blockHashes), Math.floor((request.prompt.length - 1) / ENGINE_BLOCK_TOKENS) * ENGINE_BLOCK_TOKENS);
  queue.push({ computed: hit, prompt: request.prompt.length, end: request.prompt.length + request.outputTokens, own: true });
  let freeTokens = engine.scheduler.kv.pool.freeCount * ENGINE_BLOCK_TOKENS;
  let timeMs = Math.max(0, engine.stepEndsMs - nowMs);
  const batch: StepBatch = { prefillTokens: 0, chunks: 0, prefillPairs: 0, decodes: 0, decodeContext: 0 };
  for (let step = 0; step < MAX_STEPS; step++) {
    clear(batch);
    let budget = spec.maxBatchedTokens;
    let last = false;
    const take = (one: Sequence): void => {
      const wanted = one.computed < one.prompt ? Math.min(one.prompt - one.computed, budget) : 1;
      add(batch, one, wanted);
      budget -= wanted;
      freeTokens -= wanted;
      one.computed += wanted;
      if (one.own && one.computed >= one.prompt) last = true;
    };
    for (const one of active) if (budget > 0) take(one);
    while (queue.length > 0 && budget > 0 && active.length < spec.maxNumSeqs) {
      const head = queue[0] as Sequence;
      if (head.own && timeMs < frontEndMs && active.length > 0) break;
      if (head.prompt - head.computed > freeTokens && active.length > 0) break;
      queue.shift();
      active.push(head);
      take(head);
    }
    timeMs += door.stepTimeMs(batch);
    if (last) return Math.max(timeMs, frontEndMs);
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

function add(batch: StepBatch, { computed, prompt }: Sequence, tokens: number): void {
  if (computed >= prompt) {
    batch.decodes += 1;
    batch.decodeContext += computed;
    return;
  }
  batch.chunks += 1;
  batch.prefillTokens += tokens;
  batch.prefillPairs += tokens * (computed + tokens / 2);
}
