import { randomBytes } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import type { EngineRequest, RequestSink } from '../request.ts';
import { outputToken } from '../output-text.ts';
import { badRequest, ApiError, engineDead } from './api-error.ts';
import type { ChatBody, CompletionBody } from './bodies.ts';
import type { Emulator } from './emulator.ts';

/** What an HTTP request asks of the engine, the same for completions and chat. */
export interface Wanted {
  id: string;
  isChat: boolean;
  created: number;
  prompts: Int32Array[];
  n: number;
  /** As the client gave it. */
  maxTokens: number | undefined;
  ignoreEos: boolean;
  isStream: boolean;
  includeUsage: boolean;
  continuousUsage: boolean;
  returnTokenIds: boolean;
  priority: number;
  salt: string | undefined;
  seed: number;
}

/** One choice of the answer: an engine request, and the tokens it gave so far. */
export interface Choice {
  index: number;
  promptIndex: number;
  request: EngineRequest;
  tokens: number[];
}

/** Default of `/v1/completions`, as in vLLM and OpenAI's API. */
const COMPLETION_DEFAULT_TOKENS = 16;

/** Engine requests that one HTTP request may become. */
const MAX_CHOICES = 4096;

/** Reads what both APIs have in common; throws `ApiError`. */
export function readWanted(
  emulator: Emulator,
  body: CompletionBody | ChatBody,
  headers: IncomingHttpHeaders,
  prompts: Int32Array[],
  isChat: boolean,
  maxTokens: number | undefined,
): Wanted {
  const { faults, engine, maxModelLen } = emulator;
  checkModel(emulator, body.model);
  if (faults.status === 503) throw new ApiError(503, 'ServiceUnavailableError', 'Emulated fault: status 503');
  if (faults.status === 500) throw new ApiError(500, 'InternalServerError', 'Emulated fault: status 500');
  if (engine.isDead) throw engineDead();
  const n = body.n ?? 1;
  if (prompts.length * n > MAX_CHOICES)
    throw badRequest(`${prompts.length} prompts with n=${n} are over ${MAX_CHOICES} choices`, 'n');
  for (const prompt of prompts) checkLength(prompt.length, maxTokens, maxModelLen);
  const given = headers['x-request-id'] ?? body.request_id ?? randomBytes(8).toString('hex');
  const priority = Number(headers['x-vllm-priority'] ?? body.priority ?? 0);
  const includeUsage = body.stream_options?.include_usage ?? false;
  return {
    id: `${isChat ? 'chatcmpl' : 'cmpl'}-${String(given)}`,
    isChat,
    created: Math.floor(emulator.clock.wallMs() / 1000),
    prompts,
    n,
    maxTokens,
    ignoreEos: body.ignore_eos ?? false,
    isStream: body.stream ?? false,
    includeUsage,
    continuousUsage: includeUsage && (body.stream_options?.continuous_usage_stats ?? false),
    returnTokenIds: body.return_token_ids ?? false,
    priority: Number.isInteger(priority) ? priority : 0,
    salt: body.cache_salt ?? undefined,
    seed: body.seed ?? 0,
  };
}

/** vLLM's 404 for a model that is not served; an absent model is the served one. */
export function checkModel(emulator: Emulator, model: string | null | undefined): void {
  if (model === undefined || model === null || model === '' || model === emulator.model) return;
  throw new ApiError(404, 'NotFoundError', `The model \`${model}\` does not exist.`, 'model');
}

/** Submits all choices of a request; `sinkOf` says where the outputs of each go. */
export function submitChoices(emulator: Emulator, wanted: Wanted, sinkOf: (choice: Choice) => RequestSink): Choice[] {
  const choices: Choice[] = [];
  for (let p = 0; p < wanted.prompts.length; p++) {
    for (let i = 0; i < wanted.n; i++) choices.push(submitOne(emulator, wanted, p, choices.length, i, sinkOf));
  }
  return choices;
}

function submitOne(
  emulator: Emulator,
  wanted: Wanted,
  promptIndex: number,
  index: number,
  sample: number,
  sinkOf: (choice: Choice) => RequestSink,
): Choice {
  const { engine, metrics } = emulator;
  const prompt = wanted.prompts[promptIndex]!;
  const seed = promptSeed(prompt, Math.imul(wanted.seed, 31) + sample);
  const room = emulator.maxModelLen - prompt.length;
  const limit = outputLimit(wanted, seed, room);
  const choice: Partial<Choice> = { index, promptIndex, tokens: [] };
  const inner = sinkOf(choice as Choice);
  const asked = { n: wanted.n, maxTokens: wanted.maxTokens };
  choice.request = engine.submit(
    {
      id: `${wanted.id}-${index}`,
      prompt,
      ...limit,
      priority: wanted.priority,
      salt: wanted.salt,
      outputSeed: wanted.isChat ? -1 - seed : seed,
    },
    {
      onToken: (request, token, nowMs) => inner.onToken?.(request, token, nowMs),
      onFinish: (request, nowMs) => {
        metrics.onParams(asked);
        inner.onFinish(request, nowMs);
      },
      onDeath: (request) => inner.onDeath?.(request),
    },
  );
  return choice as Choice;
}

/**
 * A chat answer without a limit ends by itself, after 32 to 511 tokens by the seed; any other output has a limit to run
 * to.
 */
function outputLimit(wanted: Wanted, seed: number, room: number): { maxOutput: number; endReason: 'length' | 'stop' } {
  const chosen = 32 + ((Math.imul(seed, 0x9e3779b1) >>> 8) % 480);
  if (wanted.maxTokens !== undefined) return { maxOutput: Math.min(wanted.maxTokens, room), endReason: 'length' };
  if (!wanted.isChat) return { maxOutput: Math.min(COMPLETION_DEFAULT_TOKENS, room), endReason: 'length' };
  if (wanted.ignoreEos || chosen >= room) return { maxOutput: room, endReason: 'length' };
  return { maxOutput: chosen, endReason: 'stop' };
}

/** The next token of a request: the emulator's whole model. */
export function sampleToken(request: EngineRequest): number {
  return outputToken(request.outputSeed, request.outputCount);
}

/** A 31-bit seed of the end of a prompt, so that equal requests get equal answers. */
function promptSeed(prompt: Int32Array, salt: number): number {
  let hash = 0x811c9dc5 ^ salt ^ prompt.length;
  for (let i = Math.max(0, prompt.length - 256); i < prompt.length; i++)
    hash = Math.imul(hash ^ prompt[i]!, 0x01000193);
  return (hash ^ (hash >>> 15)) >>> 1;
}

function checkLength(promptLength: number, maxTokens: number | undefined, maxModelLen: number): void {
  const wanted = maxTokens ?? 1;
  if (promptLength + wanted <= maxModelLen) return;
  throw badRequest(
    `This model's maximum context length is ${maxModelLen} tokens. However, you requested ${wanted} output tokens and your prompt contains ` +
      `${promptLength} input tokens, for a total of ${promptLength + wanted} tokens. Please reduce the length of the input prompt or the ` +
      'number of requested output tokens.',
    promptLength >= maxModelLen ? 'input_tokens' : 'max_tokens',
  );
}
