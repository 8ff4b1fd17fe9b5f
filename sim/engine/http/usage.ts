import type { EngineRequest } from '../request.ts';
import type { Choice, Wanted } from './generation.ts';
import type { Emulator } from './emulator.ts';

/** `usage` of a whole answer, with the details vLLM adds under `--enable-prompt-tokens-details`. */
export function usageOf(wanted: Wanted, choices: Choice[], blockSize: number): object {
  let prompt = 0;
  let cached = 0;
  let created = 0;
  let completion = 0;
  for (const choice of choices) {
    completion += choice.request.outputCount;
    // The samples of one prompt count its tokens once.
    if (choice.index % wanted.n !== 0) continue;
    const { promptLength, hitTokens } = choice.request;
    prompt += promptLength;
    cached += Math.max(0, hitTokens);
    created += Math.max(0, Math.floor(promptLength / blockSize) * blockSize - Math.max(0, hitTokens));
  }
  return {
    prompt_tokens: prompt,
    total_tokens: prompt + completion,
    completion_tokens: completion,
    prompt_tokens_details: {
      cached_tokens: cached,
      created_cache_tokens: created,
      ...(wanted.isStream ? {} : { multimodal_tokens: null }),
    },
  };
}

/** `metrics` of an answer with one choice (vLLM's `--enable-per-request-metrics`); null with several. */
export function requestMetrics(choices: Choice[]): object | null {
  if (choices.length !== 1) return null;
  const { scheduledMs, queuedMs, firstTokenMs, lastTokenMs, outputCount }: EngineRequest = choices[0]!.request;
  const decodeMs = lastTokenMs - firstTokenMs;
  const generationMs = lastTokenMs - scheduledMs;
  return {
    time_to_first_token_ms: firstTokenMs - scheduledMs,
    generation_time_ms: generationMs,
    queue_time_ms: scheduledMs - queuedMs,
    mean_itl_ms: outputCount > 1 ? decodeMs / (outputCount - 1) : null,
    tokens_per_second: generationMs > 0 ? (outputCount * 1000) / generationMs : null,
    speculative_decoding: null,
  };
}

/** `system_fingerprint` of every answer. */
export function fingerprint(emulator: Emulator): string {
  return `lodestar-emulated-${emulator.gpu}`;
}
