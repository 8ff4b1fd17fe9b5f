import { seededRng } from '../../shared/env.ts';
import type { KvEvent } from '../../sim/engine/kv-events.ts';

/** Tokens in an engine block. */
export const BLOCK_TOKENS = 16;
/** Blocks of one prompt. */
export const RUN = 64;
/** Prompts that one scheduler step computes. */
export const PER_STEP = 4;
/** Prompts that the cache holds: it is full once so many have come. */
export const HELD = 512;
/** Different prompts: each comes back long after it was evicted. */
export const PROMPTS = 1536;
/** Block events of a step, the cache being full: as many blocks go as come. */
export const EVENTS_PER_STEP = 2 * PER_STEP * RUN;
const WORDS = 4000;
const FIRST_ID = 1000;

/**
 * What the bench tells its publisher. `paced`: steps at a rate from a time on; `granted`: as fast as it can up to that
 * step.
 */
export type Order =
  { kind: 'paced'; fromWallMs: number; stepMs: number; steps: number } | { kind: 'granted'; steps: number };

/** Token ids of a prompt; the same in both processes. */
export function tokensOf(prompt: number): number[] {
  const rng = seededRng(prompt + 1);
  return Array.from({ length: RUN * BLOCK_TOKENS }, () => FIRST_ID + Math.floor(rng() * WORDS));
}

/** Text of a token: a space and a word of five letters. */
export function wordOf(id: number): string {
  return ` w${(id - FIRST_ID + 36 ** 3).toString(36)}`;
}

/** Every token id that prompts use. */
export const VOCABULARY: readonly number[] = Array.from({ length: WORDS }, (_, at) => FIRST_ID + at);

/** The prompts of a step, in order. */
export function promptsOf(step: number): number[] {
  return Array.from({ length: PER_STEP }, (_, at) => (step * PER_STEP + at) % PROMPTS);
}

/**
 * What a step publishes as vLLM does: an event for each block that is evicted, from the end of its prompt, and one for
 * the blocks of each prompt.
 */
export function eventsOf(step: number, tokens: readonly (readonly number[])[]): KvEvent[] {
  const evicted = step * PER_STEP - HELD;
  const removed =
    evicted < 0
      ? []
      : promptsOf(evicted / PER_STEP).flatMap((prompt) =>
          hashesOf(prompt)
            .toReversed()
            .map((hash): KvEvent => ({ type: 'removed', hash })),
        );
  const stored = promptsOf(step).map((prompt): KvEvent => ({
    type: 'stored',
    hashes: hashesOf(prompt),
    parent: null,
    tokenIds: tokens[prompt] as number[],
    lora: null,
    extraKeys: Array.from({ length: RUN }, () => null),
  }));
  return [...removed, ...stored];
}

function hashesOf(prompt: number): number[] {
  return Array.from({ length: RUN }, (_, at) => (prompt * RUN + at + 1) * 4_194_301);
}
