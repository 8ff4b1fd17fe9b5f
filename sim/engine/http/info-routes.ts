import type { FastifyInstance, FastifyReply } from 'fastify';
import { detokenize, tokenize } from '../tokenizer.ts';
import { parseBody } from './api-error.ts';
import { detokenizeBody, tokenizeBody } from './bodies.ts';
import { EMULATED_VERSION, type Emulator } from './emulator.ts';
import { checkModel } from './generation.ts';
import { metricsText } from './metrics-text.ts';
import { chatPrompt } from './prompt.ts';

/** Everything of vLLM's surface that generates nothing. */
export function addInfoRoutes(app: FastifyInstance, emulator: Emulator): void {
  const { engine } = emulator;
  const health = (_request: unknown, reply: FastifyReply): void => {
    void reply.status(engine.isDead ? 503 : 200).send();
  };
  app.get('/health', health);
  app.get('/ping', health);
  app.post('/ping', health);
  app.get('/version', (_request, reply) => reply.send({ version: EMULATED_VERSION }));
  app.get('/load', (_request, reply) => reply.send({ server_load: emulator.load }));
  app.get('/v1/models', (_request, reply) => reply.send({ object: 'list', data: [modelCard(emulator)] }));
  app.get('/metrics', (_request, reply) => {
    void reply.type('text/plain; version=0.0.4; charset=utf-8').send(metricsText(emulator));
  });
  app.post('/reset_prefix_cache', (_request, reply) => reply.send({ success: engine.resetPrefixCache() }));
  app.post('/tokenize', (request, reply) => {
    const body = parseBody(tokenizeBody, request.body);
    checkModel(emulator, body.model);
    const tokens =
      'messages' in body && Array.isArray(body.messages)
        ? Array.from(chatPrompt(body.messages))
        : tokenize(String(body['prompt']));
    void reply.send({ count: tokens.length, max_model_len: emulator.maxModelLen, tokens, token_strs: null });
  });
  app.post('/detokenize', (request, reply) => {
    const body = parseBody(detokenizeBody, request.body);
    checkModel(emulator, body.model);
    void reply.send({ prompt: detokenize(body.tokens) });
  });
}

function modelCard(emulator: Emulator): object {
  const created = Math.floor(emulator.startedWallMs / 1000);
  return {
    id: emulator.model,
    object: 'model',
    created,
    owned_by: 'vllm',
    root: emulator.model,
    parent: null,
    max_model_len: emulator.maxModelLen,
    permission: [
      {
        id: 'modelperm-emulated',
        object: 'model_permission',
        created,
        allow_create_engine: false,
        allow_sampling: true,
        allow_logprobs: false,
        allow_search_indices: false,
        allow_view: true,
        allow_fine_tuning: false,
        organization: '*',
        group: null,
        is_blocking: false,
      },
    ],
  };
}
