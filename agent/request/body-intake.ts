import type { IncomingMessage } from 'node:http';
import type { AgentConfig } from '../../shared/config/index.ts';
import type { Clock } from '../../shared/env.ts';
import { BodyPieces } from './body-pieces.ts';
import type { ClientRequest, RequestReader } from './read.ts';

/** A wait that ends at a time; agent/entry/watchdog.ts looks at all of them. */
interface Deadlines {
  add(one: Deadline): void;
  remove(one: Deadline): void;
}

interface Deadline {
  deadlineMs: number;
  onTimeout(): void;
}

/** Why a request is turned away before it is routed. */
export interface Refusal {
  readonly status: number;
  readonly type: string;
  readonly message: string;
}

/** A request whose body is there. */
export interface TakenRequest {
  readonly client: ClientRequest;
  /** The request is over: its bytes no longer count. May be called again. */
  release(): void;
}

export type BodyLimits = Pick<AgentConfig, 'bodyLimitBytes' | 'bodyTimeoutMs' | 'bodyBudgetBytes'>;

/**
 * Beyond the first `bodyTimeoutMs`, a body must come at least this fast on average: 4 KiB/s, so that no client holds a
 * place with a byte now and then.
 */
const MIN_BYTES_PER_MS = 4096 / 1000;
/**
 * What reading may take of one turn of the loop before the bodies wait for the next, so that streams come in between.
 */
const TURN_MS = 2;
const TURN_BYTES = 131_072;

/**
 * Takes the bodies of an agent's requests: bounded in size, in time and, all together, in bytes, which are counted
 * until a request is over.
 */
export class BodyIntake {
  readonly limits: BodyLimits;
  readonly clock: Clock;
  readonly deadlines: Deadlines;
  /** bytes of memory that all bodies and what is read of them hold */
  heldBytes = 0;
  private turnMs = 0;
  private turnBytes = 0;
  private isTurnCounted = false;
  private waiting: IncomingMessage[] = [];

  constructor(limits: BodyLimits, clock: Clock, deadlines: Deadlines) {
    this.limits = limits;
    this.clock = clock;
    this.deadlines = deadlines;
  }

  /**
   * Collects the body of a request, which `reader` reads as it comes. Undefined: the client has gone. Never rejects.
   */
  take(request: IncomingMessage, reader: RequestReader): Promise<TakenRequest | Refusal | undefined> {
    return new Promise((resolve) => new Taking(this, request, reader, resolve).start());
  }

  /** True if so many more bytes may be held. */
  fits(bytes: number): boolean {
    return this.heldBytes + bytes <= this.limits.bodyBudgetBytes;
  }

  /** Work was done for a body; once a turn of the loop has had enough of it, the request pauses until the next. */
  spent(ms: number, bytes: number, request: IncomingMessage): void {
    this.turnMs += ms;
    this.turnBytes += bytes;
    this.countTurn();
    if (this.turnMs < TURN_MS && this.turnBytes < TURN_BYTES) return;
    request.pause();
    this.waiting.push(request);
  }

  private readonly nextTurn = (): void => {
    this.isTurnCounted = false;
    this.turnMs = 0;
    this.turnBytes = 0;
    // One at a time: together, their next pieces would be more than a turn's work.
    this.waiting.shift()?.resume();
    if (this.waiting.length > 0) this.countTurn();
  };

  private countTurn(): void {
    if (!this.isTurnCounted) setImmediate(this.nextTurn);
    this.isTurnCounted = true;
  }
}

/** One body on its way in. */
class Taking implements Deadline {
  deadlineMs: number;
  private readonly intake: BodyIntake;
  private readonly request: IncomingMessage;
  private readonly reader: RequestReader;
  private readonly resolve: (result: TakenRequest | Refusal | undefined) => void;
  private readonly pieces = new BodyPieces();
  private readonly startMs: number;
  /** bytes counted in the budget for this request */
  private counted = 0;

  constructor(
    intake: BodyIntake,
    request: IncomingMessage,
    reader: RequestReader,
    resolve: (result: TakenRequest | Refusal | undefined) => void,
  ) {
    this.intake = intake;
    this.request = request;
    this.reader = reader;
    this.resolve = resolve;
    this.startMs = intake.clock.nowMs();
    this.deadlineMs = this.startMs + intake.limits.bodyTimeoutMs;
  }

  start(): void {
    const { request, intake } = this;
    const { 'content-length': length, 'transfer-encoding': encoding } = request.headers;
    const bytes = Number(length ?? 0);
    if (request.socket.destroyed) return this.settle(undefined);
    if (bytes > intake.limits.bodyLimitBytes) return this.settle(this.tooLarge());
    if (bytes > 0 && !intake.fits(bytes)) return this.settle(this.overBudget());
    if (bytes === 0 && encoding === undefined) return this.finish();
    request.on('data', this.onData).on('end', this.onEnd).on('close', this.onClose).on('error', ignore);
    intake.deadlines.add(this);
  }

  onTimeout(): void {
    const { bodyTimeoutMs } = this.intake.limits;
    const message = `The request body came too slowly: no byte for ${bodyTimeoutMs} ms, or less than 4 KiB/s after that time (agent.bodyTimeoutMs).`;
    this.settle({ status: 408, type: 'RequestTimeout', message });
  }

  private readonly onData = (piece: Buffer): void => {
    const { intake, pieces, reader, request } = this;
    const { limits, clock } = intake;
    const nowMs = clock.nowMs();
    if (pieces.bytes + piece.length > limits.bodyLimitBytes) return this.settle(this.tooLarge());
    if (!intake.fits(piece.length)) return this.settle(this.overBudget());
    pieces.add(piece);
    reader.push(piece);
    if (!this.count(pieces.heldBytes + reader.heldBytes)) return this.settle(this.overBudget());
    const slowestMs = this.startMs + limits.bodyTimeoutMs + pieces.bytes / MIN_BYTES_PER_MS;
    this.deadlineMs = Math.min(nowMs + limits.bodyTimeoutMs, slowestMs);
    intake.spent(clock.nowMs() - nowMs, piece.length, request);
  };

  private readonly onEnd = (): void => this.finish();

  private readonly onClose = (): void => this.settle(undefined);

  private finish(): void {
    const client = this.reader.finish(this.pieces.list());
    // What the reader held makes way for the prompt.
    if (!this.count(this.pieces.heldBytes + client.prompt.length)) return this.settle(this.overBudget());
    this.settle({ client, release: () => void this.count(0) });
  }

  /** Sets what counts for this request. False: that is more than the budget has. */
  private count(bytes: number): boolean {
    const fits = bytes <= this.counted || this.intake.fits(bytes - this.counted);
    this.intake.heldBytes += bytes - this.counted;
    this.counted = bytes;
    return fits;
  }

  private settle(result: TakenRequest | Refusal | undefined): void {
    const { request } = this;
    request.off('data', this.onData).off('end', this.onEnd).off('close', this.onClose);
    this.intake.deadlines.remove(this);
    if (!result || 'status' in result) this.count(0);
    this.resolve(result);
  }

  private tooLarge(): Refusal {
    return {
      status: 413,
      type: 'RequestEntityTooLarge',
      message: `The request body exceeds ${this.intake.limits.bodyLimitBytes} bytes (agent.bodyLimitBytes).`,
    };
  }

  private overBudget(): Refusal {
    const message = `This agent holds request bodies of ${this.intake.limits.bodyBudgetBytes} bytes already (agent.bodyBudgetBytes).`;
    return { status: 503, type: 'ServiceUnavailableError', message };
  }
}

/** A request that breaks is one that closes. */
function ignore(): void {}
