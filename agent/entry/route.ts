import type { ServerResponse } from 'node:http';
import type { RoutingRequest } from '../../shared/candidate.ts';
import { errorMessage } from '../../shared/errors.ts';
import { isOutdatedLaw, lawSamplesOf } from '../../shared/predictor/law-age.ts';
import { admit, type Admission } from './admit.ts';
import { ClientAnswer } from '../wire/client-answer.ts';
import type { AgentContext } from './context.ts';
import type { Decision } from './decide.ts';
import { deliver } from '../door/deliver.ts';
import type { Fingerprint } from '../request/fingerprint.ts';
import { ledgerPrompt, printOf, tokensPerBlock } from '../request/prompt.ts';
import { type AttemptResult, forward } from './forward.ts';
import { HOP_HEADER, REPORT_HEADER, signHop } from '../wire/hop.ts';
import type { ClientRequest } from '../request/read.ts';
import { decodeReport } from '../wire/report-wire.ts';
import { makeSample } from './samples.ts';
import { type Attempt, type AttemptHandler, passableHeaders } from '../wire/upstream.ts';

/** What a client should wait before it asks again when no instance can take its request, in seconds. */
const RETRY_AFTER_S = '1';

/**
 * The life of one request at its entry: fingerprint → snapshot → features → predict → decide → admit → forward → observe → sample, again on another
 * instance while no byte has reached the client. (`read` comes before, in server.ts; docs/request-lifecycle.md draws it.) Never rejects.
 */
export async function route(context: AgentContext, client: ClientRequest, response: ServerResponse): Promise<void> {
  const answer = new ClientAnswer(response);
  const request = routingRequest(context, client);
  const print = printOf(context, client);
  const excluded = new Set<string>();
  let last: AttemptResult | undefined;
  for (let attempt = 0; ; attempt++) {
    const decision = decideOn(context, request, client, print, excluded);
    if (!decision) return last ? giveUp(answer, last) : refuse(context, client, answer);
    if (attempt > 0) context.metrics.retries.inc();
    const admission = admit(context.instances, decision, print);
    const mayRetry = attempt < context.config.retries;
    const result = await attemptOn(context, client, decision, admission, print, answer, mayRetry);
    admission.release(neverComputed(result));
    observe(context, client, decision, result, attempt);
    if (result.begun || answer.gone || result.status === 'aborted') return;
    excluded.add(decision.view.id);
    if (!mayRetry) return giveUp(answer, result);
    last = result;
  }
}

/** No engine has computed the prompt: the attempt failed before its first byte, or was refused. */
export function neverComputed({ status, begun, httpStatus }: Pick<AttemptResult, 'status' | 'begun' | 'httpStatus'>): boolean {
  if (begun) return httpStatus !== undefined && httpStatus >= 400;
  return status === 'failed' || status === 'timeout';
}

/** What the choice needs to know of the request. */
export function routingRequest(context: AgentContext, client: ClientRequest): RoutingRequest {
  const textTokens = context.tokens.promptTokens(client);
  return {
    model: client.model,
    promptTokens: textTokens,
    textTokens,
    exactTokens: client.promptIsTokens,
    maxTokens: client.maxTokens,
    outputTokens: context.outputs.expect(client),
    stream: client.stream,
    sloTtftMs: client.sloTtftMs,
    sloTpotMs: client.sloTpotMs,
    priority: client.priority,
    sequences: client.sequences,
  };
}

/** Snapshot, features, prediction and choice. Undefined when nobody may take the request. */
export function decideOn(
  context: AgentContext,
  request: RoutingRequest,
  client: ClientRequest,
  print: Fingerprint,
  excluded: ReadonlySet<string>,
): Decision | undefined {
  const { clock } = context.env;
  const startMs = clock.nowMs();
  context.instances.readLocal(context.draining);
  const guard = { request, nowMs: startMs, staleAfterMs: context.config.staleAfterMs };
  const snapshot = context.snapshots.take(guard, print.hashes, tokensPerBlock(context, client), excluded);
  if (snapshot.views.length === 0) return undefined;
  const decision = context.decider.decide(request, snapshot);
  context.metrics.decisionSeconds.observe((clock.nowMs() - startMs) / 1000);
  context.metrics.decisions.inc({ policy: decision.policy, reason: decision.reason });
  return decision;
}

function attemptOn(
  context: AgentContext,
  client: ClientRequest,
  decision: Decision,
  admission: Admission,
  print: Fingerprint,
  answer: ClientAnswer,
  mayRetry: boolean,
): Promise<AttemptResult> {
  const { view } = decision;
  return forward((handler) => dispatch(context, client, admission, print, handler), answer, {
    clock: context.env.clock,
    watchdog: context.watchdog,
    firstByteTimeoutMs: context.config.firstByteTimeoutMs,
    idleTimeoutMs: context.config.idleTimeoutMs,
    stream: client.stream,
    stripUsage: client.usageAdded,
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
  if (view.local) return deliver(view.local, request, ledgerPrompt(context, client, print), { entry, epoch: context.epoch, seq }, handler);
  headers[HOP_HEADER] = signHop({ instance: view.id, entry, epoch: context.epoch, seq }, context.token);
  return context.instances.upstream(view).dispatch(request, handler);
}

/** Books what came of an attempt: breaker, trust, learned token ratio, metrics, receipt, sample. */
export function observe(context: AgentContext, client: ClientRequest, decision: Decision, result: AttemptResult, attempt: number): void {
  const { view } = decision;
  const { observed } = result;
  if (result.status === 'ok') view.breaker.succeed();
  else if (result.status === 'aborted') view.breaker.forget();
  else view.breaker.fail();

  const sample = makeSample(context.env, client, decision, result);
  const { ttftMs, tpotMs, outputTokens } = sample.outcome;
  if (ttftMs !== null) {
    // A prediction by a law that is no longer in force says nothing of what routes now.
    if (!isOutdatedLaw(lawSamplesOf(decision.row), view.report?.law.samples ?? 0)) {
      context.tables.noteOutcome(decision.predictedTtftMs, decision.predictedTtftP90Ms, ttftMs, decision.regime);
    }
    context.metrics.ttftSeconds.observe({ instance: view.id }, ttftMs / 1000);
    context.metrics.ttftErrorRatio.observe(Math.abs(decision.predictedTtftMs - ttftMs) / Math.max(1, ttftMs));
  }
  if (result.status === 'ok') context.metrics.e2eSeconds.observe({ instance: view.id }, result.e2eMs / 1000);
  context.metrics.requests.inc({ instance: view.id, status: sample.outcome.status });
  if (observed.usage?.promptTokens !== undefined && client.sequences === 1) {
    context.tokens.learn(client.model, client.promptIsTokens ? 0 : client.prompt.length, observed.usage.promptTokens);
  }
  if (result.status === 'ok') context.outputs.learn(client, outputTokens / client.sequences);
  if (observed.usage?.cachedTokens !== undefined) {
    context.metrics.hitTokens.inc({ kind: 'predicted' }, decision.hitTokens);
    context.metrics.hitTokens.inc({ kind: 'reported' }, observed.usage.cachedTokens);
  }
  context.tables.tellPolicy(decision.policy, { instance: view.id, atMs: context.env.clock.nowMs(), ok: sample.outcome.status === 'ok', ttftMs, tpotMs, outputTokens }, decision.memo);
  context.samples.push(sample);
  context.receipts.add({
    atWallMs: sample.atWallMs,
    path: client.path,
    model: client.model,
    attempt,
    chosen: view.id,
    policy: decision.policy,
    reason: decision.reason,
    propensity: decision.propensity,
    tableVersion: decision.tableVersion,
    promptTokens: decision.promptTokens,
    predictedTtftMs: decision.predictedTtftMs,
    candidates: decision.candidates,
    status: result.status,
    ttftMs: observed.ttftMs,
    e2eMs: result.e2eMs,
  });
  if (result.error) context.env.log.debug({ instance: view.id, attempt, error: errorMessage(result.error) }, 'attempt failed');
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
