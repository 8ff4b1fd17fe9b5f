import type { LodestarError } from '../../shared/errors.ts';
import type { DoorInstance } from './door-instance.ts';
import type { LedgerPrompt } from '../request/prompt.ts';
import type { LedgerRequest } from './ledger.ts';
import { AnswerText } from './cache/answer-text.ts';
import { classifyEvent, readUsage, SseReader, type Usage } from '../wire/sse.ts';
import type { Attempt, AttemptHandler, UpstreamRequest } from '../wire/upstream.ts';

/** Answers that are not streams are read for their usage up to this size. */
const MAX_READ_BYTES = 8 * 1024 * 1024;

/** Which entry's which request a delivery is; absent fields never occur: a local entry numbers its requests too. */
export interface DeliveryId {
  entry: string;
  epoch: number;
  seq: number;
}

/**
 * Hands one request to a local engine and accounts for it until it ends. The only way to the engine: local requests come by function call, those of
 * other entries by their hop.
 */
export function deliver(instance: DoorInstance, request: UpstreamRequest, prompt: LedgerPrompt, id: DeliveryId, handler: AttemptHandler): Attempt {
  instance.ledger.seen.note(id.entry, id.epoch, id.seq);
  const entry = instance.ledger.open(prompt);
  const observer = new DeliveryObserver(instance, entry, request, handler);
  const attempt = instance.upstream.dispatch({ ...request, headers: headersFor(instance, request.headers) }, observer);
  return {
    abort() {
      attempt.abort();
      observer.close();
    },
    resume: () => attempt.resume(),
  };
}

/** The client's headers with what this engine asks for: its key, and which of the ranks behind the url it is (vllm/entrypoints/generate/base/serving.py). */
function headersFor({ config }: DoorInstance, headers: UpstreamRequest['headers']): UpstreamRequest['headers'] {
  const { apiKey, dataParallelRank: rank } = config;
  return { ...headers, ...(apiKey ? { authorization: `Bearer ${apiKey}` } : {}), ...(rank === undefined ? {} : { 'x-data-parallel-rank': String(rank) }) };
}

/** Passes the answer on and keeps the ledger: tokens as they come, usage at the end. */
class DeliveryObserver implements AttemptHandler {
  private readonly instance: DoorInstance;
  private readonly entry: LedgerRequest;
  private readonly request: UpstreamRequest;
  private readonly stream: boolean;
  private readonly handler: AttemptHandler;
  private readonly text: AnswerText | undefined;
  private readonly reader = new SseReader();
  private usage: Usage | undefined;
  private status = 0;
  private answer: Buffer[] | undefined = [];
  private answerBytes = 0;
  private newTokens = 0;

  constructor(instance: DoorInstance, entry: LedgerRequest, request: UpstreamRequest, handler: AttemptHandler) {
    this.instance = instance;
    this.entry = entry;
    this.request = request;
    this.stream = entry.prompt.stream;
    this.handler = handler;
    this.text = entry.prompt.exactTokens ? undefined : AnswerText.of(request.path, entry.prompt.sequences);
  }

  onHeaders(status: number, headers: Parameters<AttemptHandler['onHeaders']>[1]): void {
    this.status = status;
    this.handler.onHeaders(status, headers);
  }

  onData(chunk: Buffer): boolean {
    if (this.status === 200) this.read(chunk);
    return this.handler.onData(chunk);
  }

  onEnd(): void {
    if (!this.stream && this.status === 200 && this.answer) {
      const body = Buffer.concat(this.answer);
      this.usage = readUsage(body.toString('utf8'));
      this.text?.push(body);
    }
    this.close(this.status === 200);
    this.handler.onEnd();
  }

  onError(error: LodestarError): void {
    this.instance.noteFailure();
    this.close(this.status === 200);
    this.handler.onError(error);
  }

  /** `computed`: the engine took the request on. One that was aborted may have been computed. */
  close(computed = true): void {
    const { usage, request } = this;
    // Without usage the answer was cut: what is there of it is not what comes back.
    const told = usage && { ...usage, answer: this.text?.text(), source: request };
    // Of several sequences, the counts are sums.
    if (told && this.entry.prompt.sequences > 1) Object.assign(told, { promptTokens: undefined, cachedTokens: undefined });
    this.instance.ledger.close(this.entry, told, computed);
  }

  private read(chunk: Buffer): void {
    if (!this.stream) {
      this.answerBytes += chunk.length;
      if (this.answerBytes > MAX_READ_BYTES) this.answer = undefined;
      this.answer?.push(chunk);
      return;
    }
    this.newTokens = 0;
    this.reader.push(chunk, this.onEvent);
    if (this.newTokens > 0) this.instance.ledger.tokens(this.entry, this.newTokens);
  }

  private readonly onEvent = (event: Buffer): void => {
    const kind = classifyEvent(event);
    if (kind === 'token') {
      this.newTokens += 1;
      this.text?.push(event);
    }
    else if (kind === 'usage') this.usage = readUsage(event.toString('utf8')) ?? this.usage;
  };
}
