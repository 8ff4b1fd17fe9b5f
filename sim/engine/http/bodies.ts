import { z } from 'zod';

const tokenIds = z.array(z.number().int().min(0)).min(1);
const flag = z.boolean().nullish();

const sampling = {
  model: z.string().nullish(),
  max_tokens: z.number().int().min(1).nullish(),
  n: z.number().int().min(1).max(128).nullish(),
  stream: flag,
  stream_options: z.looseObject({ include_usage: flag, continuous_usage_stats: flag }).nullish(),
  ignore_eos: flag,
  return_token_ids: flag,
  seed: z.number().int().nullish(),
  priority: z.number().int().nullish(),
  cache_salt: z.string().min(1).nullish(),
  request_id: z.string().min(1).nullish(),
};

/** The fields of `/v1/completions` that the emulator knows; others are accepted and ignored, as vLLM does. */
export const completionBody = z.looseObject({
  ...sampling,
  prompt: z.union([z.string(), tokenIds, z.array(z.string()).min(1).max(1024), z.array(tokenIds).min(1).max(1024)]),
});

const textPart = z.looseObject({ type: z.literal('text'), text: z.string() });

export const chatMessages = z
  .array(z.looseObject({ role: z.string(), content: z.union([z.string(), z.array(textPart), z.null()]).optional() }))
  .min(1);

/** The fields of `/v1/chat/completions` that the emulator knows. */
export const chatBody = z.looseObject({
  ...sampling,
  messages: chatMessages,
  max_completion_tokens: z.number().int().min(1).nullish(),
});

export const tokenizeBody = z.union([
  z.looseObject({ model: z.string().nullish(), prompt: z.string() }),
  z.looseObject({ model: z.string().nullish(), messages: chatMessages }),
]);

export const detokenizeBody = z.looseObject({ model: z.string().nullish(), tokens: z.array(z.number().int().min(0)) });

export type CompletionBody = z.infer<typeof completionBody>;
export type ChatBody = z.infer<typeof chatBody>;
export type ChatMessages = z.infer<typeof chatMessages>;
