import type { IncomingMessage, ServerResponse } from 'node:http';
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { errorMessage } from '../shared/errors.ts';
import { isFleetToken } from '../shared/token.ts';
import { ATTEMPTS_PATH, encodeAttempts, type HeldAttempt } from './wire/attempt-list.ts';
import { ClientAnswer, errorBody } from './wire/client-answer.ts';
import type { AgentContext } from './entry/context.ts';
import type { LocalDoors } from './door/local-doors.ts';
import { serveHop } from './door/hop-server.ts';
import { encodeReports } from './wire/report-wire.ts';
import { FAILURE_HEADER, type Hop, HOP_HEADER, openHop, READ_HEADER } from './wire/hop.ts';
import { decodeRead } from './request/read-wire.ts';
import { turnAway } from './wire/turn-away.ts';
import { type ClientRequest, type ReadBefore, RequestReader } from './request/read.ts';
import { REPORT_PATH } from './link/report-refresh.ts';
import { route } from './entry/route.ts';
import { agentStatus, type StatusSources } from './status.ts';

/** vLLM's administration under /v1: never proxied from outside. */
const ADMIN_ROUTES = /^\/v1\/+(load_lora_adapter|unload_lora_adapter)(\/|$)/;
/**
 * Routes outside /v1 that clients of vLLM use: a prompt's exact tokens, and their text. Whatever else lies there is
 * administration.
 */
const TOKENIZER_ROUTES = ['/tokenize', '/detokenize'];
/** Segments that an engine behind another proxy might resolve to a route outside /v1. */
const DOT_SEGMENTS = /\/\.\.?(\/|$)/;
const OWN_FAILURE = 'The agent failed on this request.';
const RESET_TIMEOUT_MS = 10_000;
const RESET_ANSWER_BYTES = 65_536;

/**
 * The agent's HTTP side: the OpenAI surface of the fleet, the door for other agents' hops, health, metrics and status.
 */
export function makeServer(context: AgentContext, local: LocalDoors, sources: StatusSources): FastifyInstance {
  const app = Fastify({
    logger: false,
    forceCloseConnections: 'idle',
    requestTimeout: 0,
    keepAliveTimeout: 75_000,
    // Fastify's router fails on a path before any route or error handler is there to answer.
    frameworkErrors: (error, _request, reply) =>
      error.code === 'FST_ERR_BAD_URL' ? badUrl(reply) : sendError(context, reply, error),
  });
  app.removeAllContentTypeParsers();
  // Fastify's own routes have no use for bodies; `serve` reads its own.
  app.addContentTypeParser('*', (_request, _payload, done) => done(null));
  app.setErrorHandler((error, _request, reply) => sendError(context, reply, error));
  app.setNotFoundHandler((_request, reply) => reply.code(404).send({ detail: 'Not Found' }));

  app.get('/v1/models', (_request, reply) => reply.send(fleetModels(context)));
  // Taken over before Fastify looks at the content type: what it calls malformed, the engine may read.
  const proxied = {
    onRequest: (request: FastifyRequest, reply: FastifyReply) => void serve(context, local, request, reply),
  };
  for (const path of ['/v1/*', ...TOKENIZER_ROUTES]) app.all(path, proxied, () => undefined);
  app.get('/health', (_request, reply) => reply.code(200).send());
  app.get('/ready', (_request, reply) => {
    const ready = !context.draining && anyUp(context);
    return reply.code(ready ? 200 : 503).send({ ready });
  });
  app.get('/metrics', async (_request, reply) =>
    reply.type(context.metrics.registry.contentType).send(await context.metrics.registry.metrics()),
  );
  app.get('/lodestar/status', (_request, reply) => reply.send(agentStatus(context, sources)));
  app.get<{ Querystring: { limit?: string } }>('/lodestar/receipts', (request, reply) => {
    if (!authorised(context, request, reply)) return reply;
    return reply.send(context.receipts.newest(Math.min(1000, Math.max(1, Number(request.query.limit) || 20))));
  });
  app.get(REPORT_PATH, (request, reply) => {
    if (!authorised(context, request, reply)) return reply;
    const reports = [...local.byId.values()].map((door) => door.report(context.draining));
    return reply.type('application/msgpack').send(encodeReports(reports));
  });
  app.get<{ Querystring: { entry?: string; epoch?: string } }>(ATTEMPTS_PATH, (request, reply) => {
    if (!authorised(context, request, reply)) return reply;
    const { entry = '', epoch } = request.query;
    return reply.type('application/msgpack').send(encodeAttempts(heldAttempts(context, local, entry, Number(epoch))));
  });
  app.post<{ Params: { id: string } }>('/lodestar/instances/:id/reset-prefix-cache', (request, reply) =>
    resetPrefixCache(context, local, request, reply),
  );
  return app;
}

/**
 * A client's request, or a hop from another entry. It answers on the raw response, after its own reading of the body.
 */
async function serve(
  context: AgentContext,
  local: LocalDoors,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<void> {
  const raw: IncomingMessage = request.raw;
  const decoded = decodedPath(raw.url ?? '/');
  if (decoded === undefined) return badUrl(reply);
  if (isForbidden(decoded)) return void reply.code(404).send({ detail: 'Not Found' });
  reply.hijack();
  const header = raw.headers[HOP_HEADER];
  const hop = typeof header === 'string' ? openHop(header, context.token) : undefined;
  if (!hop && context.inFlight >= context.config.maxInFlight) {
    const message = `This entry holds ${context.config.maxInFlight} requests already (agent.maxInFlight).`;
    return turnAway(context.env.clock, raw, reply.raw, { status: 503, type: 'ServiceUnavailableError', message });
  }
  if (!hop) context.inFlight += 1;
  try {
    await (hop ? takeHop(context, local, hop, raw, reply.raw) : takeClient(context, raw, reply.raw));
  } catch (error) {
    // The answer is no longer Fastify's: without this, its client would wait for ever.
    context.env.log.error({ err: error }, 'request failed inside the agent');
    const answer = new ClientAnswer(reply.raw);
    if (answer.begun) reply.raw.destroy();
    else answer.fail(500, 'InternalServerError', OWN_FAILURE);
  } finally {
    if (!hop) context.inFlight -= 1;
  }
}

async function takeClient(context: AgentContext, raw: IncomingMessage, response: ServerResponse): Promise<void> {
  const arrivedMs = context.env.clock.nowMs();
  await take(context, raw, response, undefined, (client) => route(context, client, response, arrivedMs));
}

/** What the entry has read is believed, since its header is the fleet's. */
async function takeHop(
  context: AgentContext,
  { byId, entries, hops }: LocalDoors,
  hop: Hop,
  raw: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  entries.heard(hop.entry, hop.epoch);
  const door = byId.get(hop.instance);
  if (!door) {
    const refusal = {
      status: 503,
      type: 'ServiceUnavailableError',
      message: `This agent is not the door of ${hop.instance}.`,
    };
    return turnAway(context.env.clock, raw, response, refusal, { [FAILURE_HEADER]: 'unknown-instance' });
  }
  hops.add(hop);
  try {
    await take(context, raw, response, decodeRead(raw.headers[READ_HEADER]), (client) =>
      serveHop(context, door, hop, client, response),
    );
  } finally {
    hops.delete(hop);
  }
}

/** Takes the body and does what is to be done with the request; until that is over, its bytes count. */
async function take(
  context: AgentContext,
  raw: IncomingMessage,
  response: ServerResponse,
  before: ReadBefore | undefined,
  use: (client: ClientRequest) => Promise<void>,
): Promise<void> {
  const reader = new RequestReader(raw.method ?? 'GET', raw.url ?? '/', raw.headers, before);
  const taken = await context.bodies.take(raw, reader);
  if (!taken) return;
  if ('status' in taken) return turnAway(context.env.clock, raw, response, taken);
  try {
    // Whoever left with the last byte gets no attempt.
    if (!raw.socket.destroyed) await use(taken.client);
  } finally {
    taken.release();
  }
}

/**
 * The path of a request target as the engine sees it: decoded, without query or fragment. Undefined if it cannot be
 * decoded.
 */
function decodedPath(target: string): string | undefined {
  try {
    return decodeURIComponent(target.split(/[?#]/, 1)[0] ?? '');
  } catch {
    return undefined;
  }
}

function badUrl(reply: FastifyReply): void {
  const message = 'The path of the URL is not valid percent-encoding of UTF-8 text.';
  void reply
    .code(400)
    .type('application/json')
    .send(errorBody(400, 'Bad Request', message));
}

/**
 * True for what is not the clients'. A target with an origin before its path (`http://host/v1/…`) is none that the
 * engine's routes are judged by.
 */
function isForbidden(path: string): boolean {
  return (
    !(path.startsWith('/v1/') || TOKENIZER_ROUTES.includes(path)) || ADMIN_ROUTES.test(path) || DOT_SEGMENTS.test(path)
  );
}

/** Errors before the request was routed, in vLLM's shape; what is our own fault says no more than that. */
function sendError(context: AgentContext, reply: FastifyReply, error: unknown): void {
  const status = (error as { statusCode?: number }).statusCode;
  if (status !== undefined && status >= 400 && status < 500) {
    reply
      .code(status)
      .type('application/json')
      .send(errorBody(status, 'Bad Request', errorMessage(error)));
  } else {
    context.env.log.error({ err: error }, 'request failed inside the agent');
    reply
      .code(500)
      .type('application/json')
      .send(errorBody(500, 'InternalServerError', OWN_FAILURE));
  }
}

function anyUp(context: AgentContext): boolean {
  context.instances.readLocal(context.draining);
  for (const view of context.instances.views.values()) if (view.report?.health === 'up') return true;
  return false;
}

/** Union of the models that some instance of the fleet serves now, in the shape of vLLM's own list. */
function fleetModels(context: AgentContext) {
  context.instances.readLocal(context.draining);
  const longest = new Map<string, number>();
  for (const { report } of context.instances.views.values()) {
    if (report?.health !== 'up') continue;
    for (const model of report.models) longest.set(model, Math.max(longest.get(model) ?? 0, report.limits.maxModelLen));
  }
  const created = Math.floor(context.epoch / 1000);
  return {
    object: 'list',
    data: [...longest].map(([id, maxModelLen]) => ({
      id,
      object: 'model',
      created,
      owned_by: 'vllm',
      root: id,
      parent: null,
      max_model_len: maxModelLen || null,
      permission: [],
    })),
  };
}

/** What an entry has running at the doors here; its question is a sign of life. */
function heldAttempts(context: AgentContext, local: LocalDoors, entry: string, epoch: number): HeldAttempt[] {
  local.entries.heard(entry, epoch);
  const nowMs = context.env.clock.nowMs();
  const isAsked = (id: { entry: string; epoch: number }): boolean => id.entry === entry && id.epoch === epoch;
  const byteMs = new Map(
    local.open
      .select(({ id }) => id.watched && isAsked(id))
      .map((one) => [`${one.instance} ${one.id.seq}`, one.lastByteMs]),
  );
  const hops = [...local.hops].filter(isAsked);
  return hops.map(({ instance, seq }) => {
    const lastMs = byteMs.get(`${instance} ${seq}`);
    return [instance, seq, lastMs === undefined ? -1 : nowMs - lastMs];
  });
}

function authorised(context: AgentContext, request: FastifyRequest, reply: FastifyReply): boolean {
  if (isFleetToken(request.headers.authorization, context.token)) return true;
  reply
    .code(401)
    .type('application/json')
    .send(errorBody(401, 'Unauthorized', 'This route needs `Authorization: Bearer <fleet token>`.'));
  return false;
}

/** Empties an engine's prefix cache (a vLLM in development mode) and the door's view of it with it. */
async function resetPrefixCache(
  context: AgentContext,
  local: LocalDoors,
  request: FastifyRequest<{ Params: { id: string } }>,
  reply: FastifyReply,
): Promise<FastifyReply> {
  if (!authorised(context, request, reply)) return reply;
  const door = local.byId.get(request.params.id);
  if (!door) return reply.code(404).send({ detail: `no local instance ${request.params.id}` });
  const timeout = new AbortController();
  const timer = context.env.clock.after(RESET_TIMEOUT_MS, () => timeout.abort());
  const status = await door.upstream
    .ask({ method: 'POST', path: '/reset_prefix_cache', headers: {}, body: [] }, timeout.signal, RESET_ANSWER_BYTES)
    .then((answer) => answer.status)
    .catch(() => (timeout.signal.aborted ? 504 : 502))
    .finally(() => timer.cancel());
  if (status === 200) door.resetPrefixCache();
  return reply.code(status).send({ success: status === 200 });
}
