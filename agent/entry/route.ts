import type { ServerResponse } from 'node:http';
import { deliver } from '../door/deliver.ts';
import type { Fingerprint } from '../request/fingerprint.ts';
import { ledgerPrompt, printOf } from '../request/prompt.ts';
import type { ClientRequest } from '../request/read.ts';
import { ClientAnswer } from '../wire/client-answer.ts';
import { HOP_HEADER, READ_HEADER, REPORT_HEADER, signHop } from '../wire/hop.ts';
import { encodeRead } from '../request/read-wire.ts';
import { decodeReport } from '../wire/report-wire.ts';
import { type Attempt, type AttemptHandler, passableHeaders } from '../wire/upstream.ts';
import type { Admission } from './admit.ts';
import { Attempts, type StartedAttempt } from './attempts.ts';
import type { AgentContext } from './context.ts';
import { isLimit } from './culprit.ts';
import { type AttemptResult, forward } from './forward.ts';
import { giveUp, refuse } from './give-up.ts';
import { type Patience, patienceOf, REQUEST_TIMEOUT_HEADER } from './patience.ts';

/** One request at its entry. */
interface Routed {
  readonly client: ClientRequest;
  readonly print: Fingerprint;
  readonly answer: ClientAnswer;
  readonly attempts: Attempts;
  readonly patience: Patience;
}

/**
 * The life of one request at its entry: fingerprint → snapshot → features → predict → decide → admit → forward →
 * observe → sample, again on another instance while no byte has reached the client. (`read` comes before, in server.ts;
 * docs/request-lifecycle.md draws it.) Never rejects.
 */
export async function route(
  context: AgentContext,
  client: ClientRequest,
  response: ServerResponse,
  arrivedMs: number,
): Promise<void> {
  const answer = new ClientAnswer(response);
  const patience = patienceOf(client.headers, arrivedMs, context.config.requestTimeoutMs);
  if (!patience)
    return answer.fail(400, 'BadRequestError', `${REQUEST_TIMEOUT_HEADER} must be a number of milliseconds above 0.`);
  const print = printOf(context, client);
  const attempts = new Attempts(context, client, print);
  const routed: Routed = { client, print, answer, attempts, patience };
  let last: AttemptResult | undefined;
  for (;;) {
    const attempt = attempts.begin(patience.firstByteByMs);
    if (!attempt) return last ? giveUp(context, client, answer, last) : refuse(context, client, answer);
    const result = await attemptOn(context, routed, attempt);
    const goesOn = attempts.end(attempt, result);
    if (answer.gone) return attempts.close();
    // What an engine has said is worth more to a client than that another could not be reached.
    last = last?.refusal && !result.refusal && !isLimit(result.ending) ? last : result;
    if (!goesOn) return giveUp(context, client, answer, last);
  }
}

function attemptOn(
  context: AgentContext,
  routed: Routed,
  { decision: { view }, admission }: StartedAttempt,
): Promise<AttemptResult> {
  const { attempts, answer, client, patience, print } = routed;
  return forward((handler) => dispatch(context, client, admission, print, handler), answer, {
    clock: context.env.clock,
    watchdog: context.watchdog,
    running: context.running,
    view,
    seq: admission.seq,
    stream: client.stream,
    deadlineMs: patience.deadlineMs,
    deadline: patience.deadline,
    slowClientTimeoutMs: context.config.slowClientTimeoutMs,
    extraHeaders: { 'x-lodestar-instance': view.id },
    onAnswerHeaders: (headers) => {
      const report = headers[REPORT_HEADER];
      // After what waits to be passed on: the next decision is soon enough for it.
      if (typeof report === 'string') setImmediate(() => takeReports(context, report));
    },
    onBegun: () => attempts.begun(),
  });
}

/** A report that comes with an answer only refines what is known: nothing of it may end the process. */
function takeReports({ env, instances }: AgentContext, text: string): void {
  try {
    for (const report of decodeReport(text)) instances.applyReport(report);
  } catch (error) {
    env.log.warn({ err: error }, 'a report in an answer could not be taken');
  }
}

/** To the engine: by function call when the door is this agent, else by a hop to the door's agent. */
function dispatch(
  context: AgentContext,
  client: ClientRequest,
  admission: Admission,
  print: Fingerprint,
  handler: AttemptHandler,
): Attempt {
  const { view, seq } = admission;
  const headers = passableHeaders(client.headers);
  const request = {
    method: client.method,
    path: client.path,
    headers,
    body: client.body,
    usageSplice: client.usageSplice,
  };
  const entry = context.config.id;
  if (view.local)
    return deliver(
      view.local,
      request,
      ledgerPrompt(context, client, print),
      { entry, epoch: context.epoch, seq, watched: false },
      handler,
    );
  const read = encodeRead(client);
  if (read !== undefined) headers[READ_HEADER] = read;
  headers[HOP_HEADER] = signHop({ instance: view.id, entry, epoch: context.epoch, seq, watched: true }, context.token);
  return context.instances.upstream(view).dispatch(request, handler);
}
