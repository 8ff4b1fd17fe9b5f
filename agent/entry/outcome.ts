import { errorMessage } from '../../shared/errors.ts';
import { isOutdatedLaw, lawSamplesOf } from '../../shared/predictor/law-age.ts';
import type { Sample } from '../../shared/sample.ts';
import type { ClientRequest } from '../request/read.ts';
import type { AgentContext } from './context.ts';
import { isLimit, type Verdict } from './culprit.ts';
import type { Decision } from './decide.ts';
import type { AttemptResult } from './forward.ts';
import type { Receipt } from './receipts.ts';
import { makeSample } from './samples.ts';

/** No engine has computed the prompt: the attempt failed before its first byte, or was refused. */
export function neverComputed({
  ending,
  begun,
  httpStatus,
}: Pick<AttemptResult, 'ending' | 'begun' | 'httpStatus'>): boolean {
  if (begun) return httpStatus !== undefined && httpStatus >= 400;
  return ending !== 'answered' && !isLimit(ending);
}

/** Books what came of an attempt as its verdict says: breaker, trust, learned token ratio, metrics, receipt, sample. */
export function bookOutcome(
  context: AgentContext,
  client: ClientRequest,
  decision: Decision,
  result: AttemptResult,
  verdict: Verdict,
  attempt: number,
): void {
  const { view } = decision;
  if (verdict.breaker === 'success') view.breaker.succeed();
  else if (verdict.breaker === 'failure') view.breaker.fail();
  else view.breaker.forget();
  const sample = makeSample(context.env, client, decision, result, verdict.outcome);
  context.metrics.requests.inc({ instance: view.id, status: sample.outcome.status, culprit: verdict.culprit });
  bookLatency(context, decision, result, sample);
  bookTokens(context, client, decision, result, sample);
  const { status, ttftMs, tpotMs, outputTokens } = sample.outcome;
  const outcome = {
    instance: view.id,
    atMs: context.env.clock.nowMs(),
    ok: status === 'ok',
    ttftMs,
    tpotMs,
    outputTokens,
  };
  context.tables.tellPolicy(decision.policy, outcome, decision.memo);
  context.samples.push(sample);
  context.receipts.add(receiptOf(client, decision, result, verdict, sample, attempt));
  if (!result.error) return;
  const { ending } = result;
  const error = errorMessage(result.error);
  context.env.log.debug({ instance: view.id, attempt, ending, culprit: verdict.culprit, error }, 'attempt failed');
}

function bookLatency(
  { metrics, tables }: AgentContext,
  decision: Decision,
  { e2eMs }: AttemptResult,
  { outcome }: Sample,
): void {
  const { view, predictedTtftMs, predictedTtftP90Ms, regime, row } = decision;
  const { status, ttftMs } = outcome;
  if (status === 'ok') metrics.e2eSeconds.observe({ instance: view.id }, e2eMs / 1000);
  if (ttftMs === null) return;
  // A prediction by a law that is no longer in force says nothing of what routes now.
  if (!isOutdatedLaw(lawSamplesOf(row), view.report?.law.samples ?? 0)) {
    tables.noteOutcome(predictedTtftMs, predictedTtftP90Ms, ttftMs, regime);
  }
  metrics.ttftSeconds.observe({ instance: view.id }, ttftMs / 1000);
  metrics.ttftErrorRatio.observe(Math.abs(predictedTtftMs - ttftMs) / Math.max(1, ttftMs));
}

/** What the answer tells of lengths: bytes per token, answer lengths, cached tokens. */
function bookTokens(
  context: AgentContext,
  client: ClientRequest,
  decision: Decision,
  result: AttemptResult,
  { outcome }: Sample,
): void {
  const { usage } = result.observed;
  if (usage?.promptTokens !== undefined && client.sequences === 1) {
    context.tokens.learn(client.model, client.promptIsTokens ? 0 : client.promptBytes, usage.promptTokens);
  }
  if (outcome.status === 'ok') context.outputs.learn(client, outcome.outputTokens / client.sequences);
  if (usage?.cachedTokens === undefined) return;
  context.metrics.hitTokens.inc({ kind: 'predicted' }, decision.hitTokens);
  context.metrics.hitTokens.inc({ kind: 'reported' }, usage.cachedTokens);
}

function receiptOf(
  client: ClientRequest,
  decision: Decision,
  { ending, observed, e2eMs }: AttemptResult,
  { culprit }: Verdict,
  { atWallMs, outcome }: Sample,
  attempt: number,
): Receipt {
  const { policy, reason, propensity, tableVersion, promptTokens, predictedTtftMs, candidates } = decision;
  return {
    atWallMs,
    path: client.path,
    model: client.model,
    attempt,
    chosen: decision.view.id,
    policy,
    reason,
    propensity,
    tableVersion,
    promptTokens,
    predictedTtftMs,
    candidates,
    status: outcome.status,
    ending,
    culprit,
    ttftMs: observed.ttftMs,
    e2eMs,
  };
}
