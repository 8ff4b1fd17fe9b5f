import type { PlannedRequest } from '../../../sim/workloads/index.ts';
import { bundledTrace, pace, readTrace, simPrompt } from '../../../sim/workloads/index.ts';

const SEED = 11;
/** Lengths and blocks of the trace are divided by this; answers are as long as they were. */
const LENGTH_SCALE = 1 / 8;
/** Longer prompts do not fit the context length of the servers. */
export const MAX_PROMPT_TOKENS = 24_000;
/** With the space before it, each is one token of the rig's tokenizer (test/vllm/rig/mktiny.py). */
const WORDS = ['world', 'this', 'is', 'a', 'tiny', 'tokenizer', 'for', 'router', 'tests'].map((word) => ` ${word}`);

/** Requests and the tokens that their prompts must count, which the servers' usage is held against. */
export interface Traffic {
  requests: PlannedRequest[];
  promptTokens: number;
}

/** `count` requests of the Mooncake conversation trace from the `first` one on, at `rps` requests a second. */
export function conversation(first: number, count: number, rps: number): Traffic {
  const trace = readTrace(bundledTrace, {
    seed: SEED,
    lengthScale: LENGTH_SCALE,
    outputScale: 1,
    maxPromptTokens: MAX_PROMPT_TOKENS,
  });
  const chosen = pace(trace.requests.slice(first, first + count), { rate: rps });
  return {
    requests: chosen.map((request) => ({
      arrivalMs: request.arrivalMs,
      maxTokens: request.outputTokens,
      prompt: () => textOf(simPrompt(request, SEED)),
    })),
    promptTokens: chosen.reduce((sum, request) => sum + request.inputTokens, 0),
  };
}

/** Text of as many tokens; what two prompts share as ids, they share as text. */
function textOf(tokens: Int32Array): string {
  return Array.from(tokens, (token) => WORDS[(token >>> 3) % WORDS.length]).join('');
}
