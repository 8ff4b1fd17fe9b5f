import type { FastifyReply } from 'fastify';
import { wordOf } from '../output-text.ts';
import { engineDead } from './api-error.ts';
import type { Emulator } from './emulator.ts';
import { submitChoices, type Choice, type Wanted } from './generation.ts';
import { fingerprint, requestMetrics, usageOf } from './usage.ts';

/**
 * Answers a request in one piece when all its choices have ended. A client that leaves before aborts its engine
 * requests at once.
 */
export function answerWhole(emulator: Emulator, wanted: Wanted, reply: FastifyReply): void {
  emulator.load++;
  let open = wanted.prompts.length * wanted.n;
  const choices = submitChoices(emulator, wanted, (choice) => ({
    onToken: (_request, token) => {
      choice.tokens.push(token);
    },
    onFinish: () => {
      if (--open === 0)
        void reply.send(
          wanted.isChat ? chatBody(emulator, wanted, choices) : completionBody(emulator, wanted, choices),
        );
    },
    onDeath: () => {
      if (!reply.sent) void reply.status(500).send(engineDead().body());
    },
  }));
  reply.raw.once('close', () => {
    emulator.load--;
    for (const choice of choices) emulator.engine.abort(choice.request);
  });
}

function common(emulator: Emulator, wanted: Wanted, choices: Choice[]): object {
  return {
    service_tier: null,
    system_fingerprint: fingerprint(emulator),
    usage: usageOf(wanted, choices, emulator.engine.blockSize),
    kv_transfer_params: null,
    ec_transfer_params: null,
    metrics: requestMetrics(choices),
  };
}

function textOf(choice: Choice): string {
  return choice.tokens.map((token) => wordOf(token).text).join('');
}

function completionBody(emulator: Emulator, wanted: Wanted, choices: Choice[]): object {
  return {
    id: wanted.id,
    object: 'text_completion',
    created: wanted.created,
    model: emulator.model,
    choices: choices.map((choice) => ({
      index: choice.index,
      text: textOf(choice),
      logprobs: null,
      finish_reason: choice.request.finishReason,
      stop_reason: null,
      token_ids: wanted.returnTokenIds ? choice.tokens : null,
      prompt_logprobs: null,
      prompt_token_ids: wanted.returnTokenIds ? Array.from(choice.request.prompt) : null,
      routed_experts: null,
    })),
    ...common(emulator, wanted, choices),
  };
}

function chatBody(emulator: Emulator, wanted: Wanted, choices: Choice[]): object {
  return {
    id: wanted.id,
    object: 'chat.completion',
    created: wanted.created,
    model: emulator.model,
    choices: choices.map((choice) => ({
      index: choice.index,
      message: {
        role: 'assistant',
        content: textOf(choice),
        refusal: null,
        annotations: null,
        audio: null,
        function_call: null,
        reasoning: null,
      },
      logprobs: null,
      finish_reason: choice.request.finishReason,
      stop_reason: null,
      token_ids: wanted.returnTokenIds ? choice.tokens : null,
      routed_experts: null,
    })),
    ...common(emulator, wanted, choices),
    prompt_logprobs: null,
    prompt_token_ids: wanted.returnTokenIds ? Array.from(wanted.prompts[0]!) : null,
    prompt_text: null,
  };
}
