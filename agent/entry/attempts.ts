import type { RoutingRequest } from '../../shared/candidate.ts';
import type { Fingerprint } from '../request/fingerprint.ts';
import { tokensPerBlock } from '../request/prompt.ts';
import type { ClientRequest } from '../request/read.ts';
import { admit, type Admission } from './admit.ts';
import type { AgentContext } from './context.ts';
import { type Elsewhere, isSuspect, judge, type Verdict } from './culprit.ts';
import type { Decision } from './decide.ts';
import type { AttemptResult } from './forward.ts';
import type { Rest } from './instances.ts';
import { bookOutcome, neverComputed } from './outcome.ts';

/** Full instances that a request is offered to in vain. */
const MAX_FULL = 256;
/** An engine that has answered another request well within this time works. */
const WORKS_MS = 5000;
/** Longest time for which a full instance is left alone, whatever it asks for. */
const MAX_REST_MS = 60_000;

/** An attempt that may be sent now. */
export interface StartedAttempt {
  readonly decision: Decision;
  readonly admission: Admission;
  /** clock ms of the decision */
  readonly startMs: number;
}

/** An attempt that ended, with its number. */
interface EndedAttempt extends StartedAttempt {
  readonly result: AttemptResult;
  readonly number: number;
}

/**
 * The attempts of one request, one after the other: `begin` chooses an instance and takes a place there, `end` judges
 * how the attempt ended and says whether another may follow. It knows no promises and no sockets, so a simulated entry
 * runs the same code.
 */
export class Attempts {
  private readonly context: AgentContext;
  private readonly client: ClientRequest;
  private readonly print: Fingerprint;
  private readonly request: RoutingRequest;
  private readonly excluded = new Set<string>();
  /** ended in a way that the request itself may have caused: judged once it is known how it fares elsewhere */
  private suspects: EndedAttempt[] = [];
  private count = 0;
  private failures = 0;
  private full = 0;

  constructor(context: AgentContext, client: ClientRequest, print: Fingerprint) {
    this.context = context;
    this.client = client;
    this.print = print;
    this.request = routingRequest(context, client);
  }

  /**
   * Decides and admits in one tick. Undefined when nobody may take the request, and when it was tried before and its
   * first byte could not come by `firstByteByMs` (clock ms): its client will have left by then.
   */
  begin(firstByteByMs = Infinity): StartedAttempt | undefined {
    const { context, print } = this;
    const startMs = context.env.clock.nowMs();
    const decision = this.decide(startMs);
    if (!decision || (this.count > 0 && startMs + this.firstByteMs(decision) > firstByteByMs)) {
      this.settle('unknown');
      return undefined;
    }
    if (this.count > 0) context.metrics.retries.inc();
    return { decision, admission: admit(context.instances, decision, print), startMs };
  }

  /** Bytes of a good answer have reached the client: where the request failed before, it was not its fault. */
  begun(): void {
    if (this.suspects.length > 0) this.settle('well');
  }

  /** Judges and books the end of an attempt. True: the request may be tried again, on another instance. */
  end(started: StartedAttempt, result: AttemptResult): boolean {
    const { view } = started.decision;
    const ended: EndedAttempt = { ...started, result, number: this.count };
    started.admission.release(neverComputed(result));
    this.count += 1;
    this.excluded.add(view.id);
    if (result.ending === 'full') view.rest = this.restOf(result);
    const elsewhere: Elsewhere = this.suspects.some((one) => alike(one.result, result)) ? 'alike' : 'unknown';
    const verdict = this.judge(ended, elsewhere);
    const goesOn = verdict.retry && this.hasTries(result);
    if (goesOn && isSuspect(result.ending)) this.suspects.push(ended);
    else this.book(ended, verdict);
    if (result.ending === 'answered') {
      view.lastGoodMs = this.context.env.clock.nowMs();
      this.begun();
    }
    if (!goesOn) this.settle(elsewhere);
    return goesOn;
  }

  private restOf({ restMs, httpStatus = 503 }: AttemptResult): Rest {
    const nowMs = this.context.env.clock.nowMs();
    return { untilMs: nowMs + Math.min(MAX_REST_MS, restMs), askedUntilMs: nowMs + restMs, status: httpStatus };
  }

  /** Without streaming the first byte is that of the whole answer. */
  private firstByteMs({ predictedTtftMs, priorTpotMs }: Decision): number {
    return this.request.stream ? predictedTtftMs : predictedTtftMs + this.request.outputTokens * priorTpotMs;
  }

  /** Nothing follows, since the client has left: what was not judged yet is. */
  close(): void {
    this.settle('unknown');
  }

  /** A full instance costs no try: it has done nothing for the request. */
  private hasTries({ ending }: AttemptResult): boolean {
    if (ending === 'full') return ++this.full < MAX_FULL;
    return this.failures++ < this.context.config.retries;
  }

  /** Judges those that waited for it. */
  private settle(elsewhere: Elsewhere): void {
    for (const one of this.suspects.splice(0)) this.book(one, this.judge(one, elsewhere));
  }

  private judge(
    { decision: { view }, startMs, result: { ending, begun } }: EndedAttempt,
    elsewhere: Elsewhere,
  ): Verdict {
    const works = view.lastGoodMs > startMs || this.context.env.clock.nowMs() - view.lastGoodMs < WORKS_MS;
    return judge({ ending, begun, remote: view.local === undefined, elsewhere, works });
  }

  private book({ decision, result, number }: EndedAttempt, verdict: Verdict): void {
    bookOutcome(this.context, this.client, decision, result, verdict, number);
  }

  /** Snapshot, features, prediction and choice. */
  private decide(startMs: number): Decision | undefined {
    const { context, client, print, request } = this;
    context.instances.readLocal(context.draining);
    const guard = { request, nowMs: startMs, staleAfterMs: context.config.staleAfterMs };
    const snapshot = context.snapshots.take(guard, print.hashes, tokensPerBlock(context, client), this.excluded);
    if (snapshot.views.length === 0) return undefined;
    request.promptTokens = snapshot.promptTokens;
    const decision = context.decider.decide(request, snapshot);
    context.metrics.decisionSeconds.observe((context.env.clock.nowMs() - startMs) / 1000);
    context.metrics.decisions.inc({ policy: decision.policy, reason: decision.reason });
    return decision;
  }
}

/** The same end in the same place: a request that meets it on two instances has caused it. */
function alike(a: AttemptResult, b: AttemptResult): boolean {
  return a.ending === b.ending && a.httpStatus === b.httpStatus;
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
