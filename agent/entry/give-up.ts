import type { ClientRequest } from '../request/read.ts';
import type { ClientAnswer } from '../wire/client-answer.ts';
import type { AgentContext } from './context.ts';
import type { Ending } from './culprit.ts';
import type { AttemptResult } from './forward.ts';
import type { Rest } from './instances.ts';
import { REQUEST_TIMEOUT_HEADER } from './patience.ts';

/** What a client should wait before it asks again when no instance can take its request, in seconds. */
const RETRY_AFTER_S = '1';
/** Waited for in vain, as against failed. */
const IN_VAIN: ReadonlySet<Ending> = new Set<Ending>(['silent', 'stuck', 'lost', 'link']);

/** Nobody may take the request: its model is unknown to the fleet, or every instance is down, draining or cut off. */
export function refuse(context: AgentContext, { model }: ClientRequest, answer: ClientAnswer): void {
  if (model !== undefined && context.instances.models.size > 0 && !context.instances.models.has(model)) {
    answer.fail(404, 'NotFoundError', `The model \`${model}\` does not exist.`, { param: 'model' });
    return;
  }
  const full = fullInstances(context, model);
  if (full.length > 0) {
    // The status that they have answered: each asks to be left alone for now.
    const type = full[0]?.status === 429 ? 'TooManyRequestsError' : 'ServiceUnavailableError';
    const headers = { 'retry-after': longestRestS(context, model, 0) };
    answer.fail(full[0]?.status ?? 503, type, 'Every instance for the request is full.', { headers });
    return;
  }
  const message = 'The request cannot be served now: no instance is up for it.';
  answer.fail(503, 'ServiceUnavailableError', message, { headers: { 'retry-after': RETRY_AFTER_S } });
}

/** No further attempt follows: the client gets what the last instance said, or what became of the request there. */
export function giveUp(
  context: AgentContext,
  { model }: ClientRequest,
  answer: ClientAnswer,
  last: AttemptResult,
): void {
  if (answer.gone || answer.begun) return;
  const { ending, refusal } = last;
  if (refusal) {
    const headers = ending === 'full' ? { 'retry-after': longestRestS(context, model, last.restMs) } : undefined;
    if (!refusal.body)
      return answer.fail(
        refusal.status,
        'UpstreamError',
        'The error message of the instance was too long to be passed on.',
        headers && { headers },
      );
    answer.begin(refusal.status, refusal.headers, headers ?? {});
    answer.write(refusal.body);
    answer.end();
  } else if (ending === 'client-deadline') {
    answer.fail(504, 'GatewayTimeoutError', `The request was not answered within its ${REQUEST_TIMEOUT_HEADER}.`);
  } else if (ending === 'operator-deadline') {
    answer.fail(
      504,
      'GatewayTimeoutError',
      `The request was not answered within ${context.config.requestTimeoutMs} ms (agent.requestTimeoutMs).`,
    );
  } else if (IN_VAIN.has(ending))
    answer.fail(504, 'GatewayTimeoutError', 'The instance that had the request stopped answering.');
  else
    answer.fail(502, 'BadGatewayError', 'The instance failed before it answered.', {
      headers: { 'retry-after': RETRY_AFTER_S },
    });
}

/** What the full instances for a model have said, as far as they are to be left alone still. */
function fullInstances({ env, instances }: AgentContext, model: string | undefined): Rest[] {
  const nowMs = env.clock.nowMs();
  return [...instances.views.values()].flatMap(({ report, rest }) => {
    const serves = report?.health === 'up' && (model === undefined || report.models.includes(model));
    return serves && rest && rest.untilMs > nowMs ? [rest] : [];
  });
}

/** The longest that a full instance for the model has asked to be left alone for, at least `leastMs`, in whole seconds. */
function longestRestS(context: AgentContext, model: string | undefined, leastMs: number): string {
  const nowMs = context.env.clock.nowMs();
  const longestMs = Math.max(leastMs, ...fullInstances(context, model).map((one) => one.askedUntilMs - nowMs));
  return String(Math.max(1, Math.ceil(longestMs / 1000)));
}
