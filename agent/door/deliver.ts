import type { IncomingHttpHeaders } from 'node:http';
import { type Splice, spliced } from '../request/json-splice.ts';
import type { LedgerPrompt } from '../request/prompt.ts';
import type { AttemptFailure } from '../wire/ending.ts';
import { INTERNAL_HEADERS, USAGE_HEADER } from '../wire/hop.ts';
import { EventCutter, readUsage, type Usage } from '../wire/sse.ts';
import type { Attempt, AttemptHandler, UpstreamRequest } from '../wire/upstream.ts';
import { type AnswerForm, formOf, WholeAnswer } from '../wire/whole-answer.ts';
import { AnswerText } from './cache/answer-text.ts';
import type { DoorInstance } from './door-instance.ts';
import type { LedgerRequest } from './ledger.ts';
import type { DeliveryId, OpenAttempt } from './open-attempts.ts';

const GENERATES = /^\/v1\/(chat\/)?completions(\?|$)/;

/** A request for an engine. */
export interface DeliveryRequest extends UpstreamRequest {
  /** makes the body ask for a stream's usage, which the client did not ask for */
  readonly usageSplice: Splice | undefined;
}

/**
 * Hands one request to a local engine and accounts for it until it ends. The only way to the engine: local requests
 * come by function call, those of other entries by their hop.
 */
export function deliver(
  instance: DoorInstance,
  request: DeliveryRequest,
  prompt: LedgerPrompt,
  id: DeliveryId,
  handler: AttemptHandler,
): Attempt {
  instance.ledger.seen.note(id.entry, id.epoch, id.seq);
  return new Delivery(instance, request, prompt, id, handler).start(request);
}

/**
 * The client's headers with what this engine asks for: its key, and which of the ranks behind the url it is
 * (vllm/entrypoints/generate/base/serving.py).
 */
function headersFor({ config }: DoorInstance, headers: UpstreamRequest['headers']): UpstreamRequest['headers'] {
  const { apiKey, dataParallelRank: rank } = config;
  return {
    ...headers,
    // An answer in a coding of its own could not be read, and would be held back by its compressor.
    'accept-encoding': 'identity',
    ...(apiKey ? { authorization: `Bearer ${apiKey}` } : {}),
    ...(rank === undefined ? {} : { 'x-data-parallel-rank': String(rank) }),
  };
}

/** Passes the answer on and keeps the account of it: tokens as they come, usage at the end. */
class Delivery implements AttemptHandler, Attempt, OpenAttempt {
  readonly id: DeliveryId;
  readonly instance: string;
  readonly sentMs: number;
  readonly forecastMs: number;
  readonly sequences: number;
  readonly stream: boolean;
  lastByteMs: number;
  pausedUntilMs = -Infinity;
  private readonly door: DoorInstance;
  private readonly entry: LedgerRequest;
  private readonly request: DeliveryRequest;
  private readonly handler: AttemptHandler;
  private readonly text: AnswerText | undefined;
  private readonly cutter = new EventCutter();
  private readonly answer = new WholeAnswer();
  private form: AnswerForm = 'unread';
  private attempt: Attempt | undefined;
  private usage: Usage | undefined;
  /** the engine was asked for the usage, and the client did not ask */
  private usageAdded = false;
  private sawTokens = false;
  private sawDone = false;
  private status = 0;
  private over = false;

  constructor(
    door: DoorInstance,
    request: DeliveryRequest,
    prompt: LedgerPrompt,
    id: DeliveryId,
    handler: AttemptHandler,
  ) {
    this.door = door;
    this.request = request;
    this.id = id;
    this.handler = handler;
    this.instance = door.id;
    // Only these routes know `n`, batches that run at once, and streams of tokens.
    const generates = GENERATES.test(request.path);
    this.stream = generates && prompt.stream;
    this.sequences = !prompt.computed ? 0 : generates ? prompt.sequences : 1;
    this.text = prompt.exactTokens ? undefined : AnswerText.of(request.path, prompt.sequences);
    this.sentMs = door.nowMs();
    this.lastByteMs = this.sentMs;
    this.entry = door.ledger.open(door.accounted(prompt));
    this.forecastMs = this.sentMs + door.ledger.forecastMs(this.entry);
  }

  start(request: DeliveryRequest): this {
    this.door.open.add(this);
    // Whether the engine sends its usage unasked is known once it has answered a stream as the client sent it.
    this.usageAdded = request.usageSplice !== undefined && this.door.usageForced === false;
    const body = this.usageAdded ? spliced(request.body, request.usageSplice) : request.body;
    try {
      this.attempt = this.door.upstream.dispatch(
        { ...request, headers: headersFor(this.door, request.headers), body },
        this,
      );
    } catch (error) {
      this.close(false);
      throw error;
    }
    return this;
  }

  abort(): void {
    if (this.over) return;
    this.attempt?.abort();
    // One that was aborted may have been computed.
    this.close(true);
  }

  get paused(): boolean {
    return this.pausedUntilMs === Infinity;
  }

  resume(): void {
    this.pausedUntilMs = this.door.nowMs();
    this.attempt?.resume();
  }

  end(failure: AttemptFailure): void {
    if (this.over) return;
    this.attempt?.abort();
    this.close(this.status === 200);
    this.handler.onFailure(failure);
  }

  onHeaders(status: number, headers: IncomingHttpHeaders): void {
    this.heard(false);
    this.status = status;
    if (status === 200) this.form = formOf(headers);
    this.handler.onHeaders(status, this.ownHeaders(headers));
  }

  onData(chunk: Buffer): boolean {
    this.heard(this.status === 200);
    if (this.form === 'whole') this.answer.push(chunk);
    const cut = this.form === 'events' ? this.cutter.push(chunk) : undefined;
    if (cut) this.read(cut);
    const goOn = this.handler.onData(chunk, cut);
    if (!goOn) this.pausedUntilMs = Infinity;
    return goOn;
  }

  onEnd(): void {
    if (this.form === 'whole') {
      this.usage = this.answer.usage();
      const body = this.answer.body();
      if (body) this.text?.push(body);
    }
    // A stream that was cut short, or failed, shows nothing.
    if (this.request.usageSplice && !this.usageAdded && this.sawTokens && this.sawDone)
      this.door.usageForced = this.usage !== undefined;
    this.close(this.status === 200);
    this.handler.onEnd({ usage: this.usage, rest: this.cutter.rest() });
  }

  onFailure(failure: AttemptFailure): void {
    this.door.noteFailure();
    this.close(this.status === 200);
    this.handler.onFailure(failure);
  }

  /**
   * The engine's headers, with the word that the usage in this stream is not for the client. What agents alone exchange
   * is not believed of an engine.
   */
  private ownHeaders(headers: IncomingHttpHeaders): IncomingHttpHeaders {
    const own: IncomingHttpHeaders = {};
    for (const name in headers) if (!INTERNAL_HEADERS.has(name)) own[name] = headers[name];
    if (this.usageAdded) own[USAGE_HEADER] = 'added';
    return own;
  }

  private heard(data: boolean): void {
    this.lastByteMs = this.door.nowMs();
    this.door.life.byte(data);
  }

  /** `computed`: the engine took the request on. */
  private close(computed: boolean): void {
    if (this.over) return;
    this.over = true;
    this.door.open.remove(this);
    const { usage, request } = this;
    // Without usage the answer was cut: what is there of it is not what comes back.
    const told = usage && { ...usage, answer: this.text?.text(), source: request };
    // For n > 1, usage counts are sums over all sequences.
    if (told && this.entry.prompt.sequences > 1)
      Object.assign(told, { promptTokens: undefined, cachedTokens: undefined });
    this.door.ledger.close(this.entry, told, computed);
  }

  private read({ events, kinds }: EventCutter): void {
    let tokens = 0;
    for (let i = 0; i < events.length; i++) {
      const event = events[i] as Buffer;
      if (kinds[i] === 'token') {
        tokens += 1;
        this.text?.push(event);
      } else if (kinds[i] === 'done') this.sawDone = true;
      else if (kinds[i] === 'usage') this.usage = readUsage(event.toString('utf8')) ?? this.usage;
    }
    if (tokens === 0) return;
    this.sawTokens = true;
    this.door.ledger.tokens(this.entry, tokens);
  }
}
