import type { RoutingRequest } from '../../shared/candidate.ts';
import type { Fingerprint } from '../request/fingerprint.ts';
import { tokensPerBlock } from '../request/prompt.ts';
import type { ClientRequest } from '../request/read.ts';
import { admit, type Admission } from './admit.ts';
import type { AgentContext } from './context.ts';
import type { Decision } from './decide.ts';
import type { AttemptResult } from './forward.ts';
import { bookOutcome, neverComputed } from './outcome.ts';

/** An attempt that may be sent now. */
export interface StartedAttempt {
  readonly decision: Decision;
  readonly admission: Admission;
  /** false on the last attempt: then the engine's own error goes to the client as it is */
  readonly mayRetry: boolean;
}

/**
 * The attempts of one request, one after the other: `begin` chooses an instance and takes a place there, `end` books how the attempt ended and says
 * whether another may follow. It knows no promises and no sockets, so a simulated entry runs the same code.
 */
export class Attempts {
  private readonly context: AgentContext;
  private readonly client: ClientRequest;
  private readonly print: Fingerprint;
  private readonly request: RoutingRequest;
  private readonly excluded = new Set<string>();
  private count = 0;

  constructor(context: AgentContext, client: ClientRequest, print: Fingerprint) {
    this.context = context;
    this.client = client;
    this.print = print;
    this.request = routingRequest(context, client);
  }

  /** Decides and admits in one tick. Undefined when nobody may take the request. */
  begin(): StartedAttempt | undefined {
    const { context, print } = this;
    const decision = this.decide();
    if (!decision) return undefined;
    if (this.count > 0) context.metrics.retries.inc();
    return { decision, admission: admit(context.instances, decision, print), mayRetry: this.count < context.config.retries };
  }

  /** Books the end of an attempt. True: the request may be tried again, on another instance. */
  end({ decision, admission, mayRetry }: StartedAttempt, result: AttemptResult): boolean {
    admission.release(neverComputed(result));
    bookOutcome(this.context, this.client, decision, result, this.count);
    this.count += 1;
    this.excluded.add(decision.view.id);
    return mayRetry && !result.begun && (result.status === 'failed' || result.status === 'timeout');
  }

  /** Snapshot, features, prediction and choice. */
  private decide(): Decision | undefined {
    const { context, client, print, request } = this;
    const { clock } = context.env;
    const startMs = clock.nowMs();
    context.instances.readLocal(context.draining);
    const guard = { request, nowMs: startMs, staleAfterMs: context.config.staleAfterMs };
    const snapshot = context.snapshots.take(guard, print.hashes, tokensPerBlock(context, client), this.excluded);
    if (snapshot.views.length === 0) return undefined;
    request.promptTokens = snapshot.promptTokens;
    const decision = context.decider.decide(request, snapshot);
    context.metrics.decisionSeconds.observe((clock.nowMs() - startMs) / 1000);
    context.metrics.decisions.inc({ policy: decision.policy, reason: decision.reason });
    return decision;
  }
}

/** What the choice needs to know of the request. */
function routingRequest(context: AgentContext, client: ClientRequest): RoutingRequest {
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
