import type { ServerResponse } from 'node:http';
import { deliver } from '../door/deliver.ts';
import type { Fingerprint } from '../request/fingerprint.ts';
import { spliced } from '../request/json-splice.ts';
import { ledgerPrompt, printOf } from '../request/prompt.ts';
import type { ClientRequest } from '../request/read.ts';
import { ClientAnswer } from '../wire/client-answer.ts';
import { HOP_HEADER, READ_HEADER, REPORT_HEADER, signHop } from '../wire/hop.ts';
import { encodeRead } from '../wire/read-wire.ts';
import { decodeReport } from '../wire/report-wire.ts';
import { type Attempt, type AttemptHandler, passableHeaders } from '../wire/upstream.ts';
import type { Admission } from './admit.ts';
import { Attempts, type StartedAttempt } from './attempts.ts';
import type { AgentContext } from './context.ts';
import { type AttemptResult, forward } from './forward.ts';

/** What a client should wait before it asks again when no instance can take its request, in seconds. */
const RETRY_AFTER_S = '1';

/**
 * The life of one request at its entry: fingerprint → snapshot → features → predict → decide → admit → forward → observe → sample, again on another
 * instance while no byte has reached the client. (`read` comes before, in server.ts; docs/request-lifecycle.md draws it.) Never rejects.
 */
export async function route(context: AgentContext, client: ClientRequest, response: ServerResponse): Promise<void> {
  const answer = new ClientAnswer(response);
  const print = printOf(context, client);
  const attempts = new Attempts(context, client, print);
  let last: AttemptResult | undefined;
  for (;;) {
    const attempt = attempts.begin();
    if (!attempt) return last ? giveUp(answer, last) : refuse(context, client, answer);
    const result = await attemptOn(context, client, attempt, print, answer);
    const goesOn = attempts.end(attempt, result);
    if (answer.gone) return;
    if (!goesOn) return giveUp(answer, result);
    last = result;
  }
}

function attemptOn(
  context: AgentContext,
  client: ClientRequest,
  { decision: { view }, admission, mayRetry }: StartedAttempt,
  print: Fingerprint,
  answer: ClientAnswer,
): Promise<AttemptResult> {
  return forward((handler) => dispatch(context, client, admission, print, handler), answer, {
    clock: context.env.clock,
    watchdog: context.watchdog,
    firstByteTimeoutMs: context.config.firstByteTimeoutMs,
    idleTimeoutMs: context.config.idleTimeoutMs,
    stream: client.stream,
    stripUsage: client.usageSplice !== undefined,
    mayRetry,
    extraHeaders: { 'x-lodestar-instance': view.id },
    onAnswerHeaders: (headers) => {
      const report = headers[REPORT_HEADER];
      // After what waits to be passed on: the next decision is soon enough for it.
      if (typeof report === 'string') setImmediate(() => decodeReport(report).forEach((one) => context.instances.applyReport(one)));
    },
  });
}

/** To the engine: by function call when the door is this agent, else by a hop to the door's agent. */
function dispatch(context: AgentContext, client: ClientRequest, admission: Admission, print: Fingerprint, handler: AttemptHandler): Attempt {
  const { view, seq } = admission;
  const headers = passableHeaders(client.headers);
  const request = { method: client.method, path: client.path, headers, body: client.body };
  const entry = context.config.id;
  if (view.local) {
    request.body = spliced(client.body, client.usageSplice);
    return deliver(view.local, request, ledgerPrompt(context, client, print), { entry, epoch: context.epoch, seq }, handler);
  }
  const read = encodeRead(client);
  if (read !== undefined) headers[READ_HEADER] = read;
  headers[HOP_HEADER] = signHop({ instance: view.id, entry, epoch: context.epoch, seq }, context.token);
  return context.instances.upstream(view).dispatch(request, handler);
}

/** Nobody may take it: the model is unknown to the fleet, or every instance is down, draining or cut off. */
function refuse(context: AgentContext, client: ClientRequest, answer: ClientAnswer): void {
  const { model } = client;
  if (model !== undefined && context.instances.models.size > 0 && !context.instances.models.has(model)) {
    answer.fail(404, 'NotFoundError', `The model \`${model}\` does not exist.`, { param: 'model' });
    return;
  }
  const message = 'The request cannot be served now: no instance is up for it.';
  answer.fail(503, 'ServiceUnavailableError', message, { headers: { 'retry-after': RETRY_AFTER_S } });
}

/** Every instance that could take it has failed: the client gets what the last one said, or what became of it. */
function giveUp(answer: ClientAnswer, { status, refusal }: AttemptResult): void {
  if (answer.gone || answer.begun) return;
  if (refusal) {
    answer.begin(refusal.status, refusal.headers, {});
    answer.write(refusal.body);
    answer.end();
  } else if (status === 'timeout') answer.fail(504, 'GatewayTimeoutError', 'No instance answered in time.');
  else answer.fail(502, 'BadGatewayError', 'The instance failed before it answered.', { headers: { 'retry-after': RETRY_AFTER_S } });
}
