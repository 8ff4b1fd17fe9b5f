import type { FastifyInstance, FastifyReply } from 'fastify';
import { answerWhole } from './answer.ts';
import { parseBody } from './api-error.ts';
import { chatBody, completionBody } from './bodies.ts';
import type { Emulator } from './emulator.ts';
import { readWanted, type Wanted } from './generation.ts';
import { chatPrompt, completionPrompts } from './prompt.ts';
import { StreamAnswer } from './stream.ts';

/** `/v1/completions` and `/v1/chat/completions`. */
export function addGenerateRoutes(app: FastifyInstance, emulator: Emulator): void {
  app.post('/v1/completions', (request, reply) => {
    const body = parseBody(completionBody, request.body);
    const prompts = completionPrompts(body.prompt);
    answer(emulator, readWanted(emulator, body, request.headers, prompts, false, body.max_tokens ?? undefined), reply);
  });
  app.post('/v1/chat/completions', (request, reply) => {
    const body = parseBody(chatBody, request.body);
    const maxTokens = body.max_completion_tokens ?? body.max_tokens ?? undefined;
    answer(emulator, readWanted(emulator, body, request.headers, [chatPrompt(body.messages)], true, maxTokens), reply);
  });
}

function answer(emulator: Emulator, wanted: Wanted, reply: FastifyReply): void {
  if (reply.raw.destroyed) {
    // The client left while its body was read: its `close` event is over.
    reply.hijack();
    return;
  }
  if (!wanted.isStream) {
    answerWhole(emulator, wanted, reply);
    return;
  }
  reply.hijack();
  void new StreamAnswer(emulator, wanted, reply.raw);
}
