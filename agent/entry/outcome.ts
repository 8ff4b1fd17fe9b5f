import { errorMessage } from '../../shared/errors.ts';
import { isOutdatedLaw, lawSamplesOf } from '../../shared/predictor/law-age.ts';
import type { ClientRequest } from '../request/read.ts';
import type { AgentContext } from './context.ts';
import { OWN_ENDINGS, type Verdict } from './culprit.ts';
import type { Decision } from './decide.ts';
import type { AttemptResult } from './forward.ts';
import { makeSample } from './samples.ts';

/** No engine has computed the prompt: the attempt failed before its first byte, or was refused. */
export function neverComputed({ ending, begun, httpStatus }: Pick<AttemptResult, 'ending' | 'begun' | 'httpStatus'>): boolean {
  if (begun) return httpStatus !== undefined && httpStatus >= 400;
  return !(ending === 'answered' || OWN_ENDINGS.some((one) => one === ending));
}

/** Books what came of an attempt as its verdict says: breaker, trust, learned token ratio, metrics, receipt, sample. */
export function bookOutcome(context: AgentContext, client: ClientRequest, decision: Decision, result: AttemptResult, verdict: Verdict, attempt: number): void {
  const { view } = decision;
  const { observed } = result;
  const ok = verdict.outcome === 'ok';
  if (verdict.breaker === 'success') view.breaker.succeed();
  else if (verdict.breaker === 'failure') view.breaker.fail();
  else view.breaker.forget();

  const sample = makeSample(context.env, client, decision, result, verdict.outcome);
  const { ttftMs, tpotMs, outputTokens } = sample.outcome;
  if (ttftMs !== null) {
    // A prediction by a law that is no longer in force says nothing of what routes now.
    if (!isOutdatedLaw(lawSamplesOf(decision.row), view.report?.law.samples ?? 0)) {
      context.tables.noteOutcome(decision.predictedTtftMs, decision.predictedTtftP90Ms, ttftMs, decision.regime);
    }
    context.metrics.ttftSeconds.observe({ instance: view.id }, ttftMs / 1000);
    context.metrics.ttftErrorRatio.observe(Math.abs(decision.predictedTtftMs - ttftMs) / Math.max(1, ttftMs));
  }
  if (ok) context.metrics.e2eSeconds.observe({ instance: view.id }, result.e2eMs / 1000);
  context.metrics.requests.inc({ instance: view.id, status: sample.outcome.status, culprit: verdict.culprit });
  if (observed.usage?.promptTokens !== undefined && client.sequences === 1) {
    context.tokens.learn(client.model, client.promptIsTokens ? 0 : client.promptBytes, observed.usage.promptTokens);
  }
  if (ok) context.outputs.learn(client, outputTokens / client.sequences);
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
    status: sample.outcome.status,
    ending: result.ending,
    culprit: verdict.culprit,
    ttftMs: observed.ttftMs,
    e2eMs: result.e2eMs,
  });
  if (result.error) context.env.log.debug({ instance: view.id, attempt, ending: result.ending, culprit: verdict.culprit, error: errorMessage(result.error) }, 'attempt failed');
}
