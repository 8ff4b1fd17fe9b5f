import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { z } from 'zod';
import { type ObjectiveName, OBJECTIVE_NAMES } from '../shared/choice/objectives/index.ts';
import { POLICY_NAMES, type PolicyName } from '../shared/choice/policies/index.ts';
import type { Log } from '../shared/env.ts';
import { isFleetToken } from '../shared/token.ts';
import type { Counters } from './counters.ts';
import { Metrics } from './metrics.ts';
import type { BrainStatus } from './status.ts';

const BODY_MAX_BYTES = 64 * 1024;

const policyBody = z.strictObject({
  policy: z.enum(POLICY_NAMES, { error: `policy: choose one of ${POLICY_NAMES.join(', ')}` }),
  objective: z.enum(OBJECTIVE_NAMES, { error: `objective: choose one of ${OBJECTIVE_NAMES.join(', ')}` }).optional(),
});

export interface ServerDeps {
  token: string;
  log: Log;
  counters: Counters;
  status(): BrainStatus;
  /** stores the choice and publishes a table with it */
  choosePolicy(policy: PolicyName, objective: ObjectiveName | undefined): void;
}

/** HTTP routes of the brain, for operators and monitoring; the hub shares its server. */
export function makeServer(deps: ServerDeps): FastifyInstance {
  const app = Fastify({ logger: false, bodyLimit: BODY_MAX_BYTES, forceCloseConnections: true });
  const metrics = new Metrics(deps.status);

  app.setErrorHandler((error: Error & { statusCode?: number }, _request, reply) => {
    const status = error.statusCode ?? 500;
    if (status >= 500) deps.log.error({ err: error }, 'a route failed');
    return refuse(reply, status, status >= 500 ? 'internal error; see the log of the brain' : error.message);
  });
  app.setNotFoundHandler((request, reply) =>
    refuse(reply, 404, `no route ${request.method} ${request.url.split('?')[0]}`),
  );

  app.get('/health', () => ({ status: 'ok' }));
  app.get('/ready', () => ({ status: 'ready' }));
  app.get('/metrics', async (_request, reply) => reply.type(metrics.contentType).send(await metrics.text()));

  const guarded = {
    preHandler: async (request: FastifyRequest, reply: FastifyReply) => requireToken(request, reply, deps),
  };
  app.get('/lodestar/status', guarded, () => deps.status());
  app.put('/lodestar/policy', guarded, (request, reply) => {
    const body = policyBody.safeParse(request.body);
    if (!body.success) return refuse(reply, 400, body.error.issues.map((issue) => issue.message).join('; '));
    deps.choosePolicy(body.data.policy, body.data.objective);
    return deps.status().policy;
  });
  return app;
}

async function requireToken(
  request: FastifyRequest,
  reply: FastifyReply,
  { token, counters }: ServerDeps,
): Promise<unknown> {
  if (isFleetToken(request.headers.authorization, token)) return;
  counters.unauthorized += 1;
  return await refuse(
    reply,
    401,
    "needs the fleet's token: send `authorization: Bearer <token>` (token or tokenFile in the configuration)",
  );
}

function refuse(reply: FastifyReply, status: number, message: string): FastifyReply {
  return reply.code(status).send({ error: { message } });
}

/** URL under which a server that listens is reached from this host. */
export function urlFromHere(host: string, port: number): string {
  const name = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host;
  return `http://${name.includes(':') ? `[${name}]` : name}:${port}`;
}
