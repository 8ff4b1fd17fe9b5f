import type { Dealer } from 'zeromq';
import type { Clock, Timer } from '../../../shared/env.ts';
import type { Batch } from './batches.ts';
import { dealTo, parseReplay, replayRequest, type Zmq } from './sockets.ts';

/** Who hears the answer to a question: batches in order, then one of the two ends. */
export interface ReplayListener {
  /** A returned promise holds back the next batch until it settles. */
  onBatch(batch: Batch): Promise<void> | undefined;
  /** The answer is over. `isCut`: it broke off. */
  onEnd(isCut: boolean): void;
  /** There is no answer. The socket is not asked again for a while. */
  onAbsent(): void;
  /** The connection was lost. */
  onDown(): void;
}

/** vLLM looks for questions at least each 100 ms, ms. */
const ANSWER_MS = 1500;
/**
 * It sends its whole buffer in one go, and drops what a ROUTER socket has no room for, the end marker too: a pause of
 * this length is the end, ms.
 */
const REST_MS = 300;
const TRIES = 2;
const FIRST_PAUSE_MS = 1000;
const MAX_PAUSE_MS = 30_000;

/**
 * Asks vLLM's replay socket, one question at a time. Answers do not say which question they are to: after one that is
 * given up, the next is asked by a new socket, where the late rest of the old answer does not come.
 */
export class ReplayClient {
  private readonly zmq: Zmq;
  private readonly endpoint: string;
  private readonly clock: Clock;
  private readonly listener: ReplayListener;
  private socket: Dealer | undefined;
  private isUp = false;
  private asked: { from: number; tries: number; received: number; lastMs: number } | undefined;
  private timer: Timer | undefined;
  private pauseMs = FIRST_PAUSE_MS;
  private pausedUntilMs = -Infinity;
  private isClosed = false;

  constructor(zmq: Zmq, endpoint: string, clock: Clock, listener: ReplayListener) {
    this.zmq = zmq;
    this.endpoint = endpoint;
    this.clock = clock;
    this.listener = listener;
  }

  /** Whether a question makes sense: false for a while after one that got no answer. */
  get isAvailable(): boolean {
    return !this.isClosed && this.clock.nowMs() >= this.pausedUntilMs;
  }

  /** Asks for all batches from `from` on; a question under way is given up. */
  ask(from: number): void {
    if (this.isClosed) return;
    if (this.asked) this.disconnect();
    this.asked = { from, tries: 1, received: 0, lastMs: this.clock.nowMs() };
    this.send();
  }

  /** The engine has just become reachable: a question that waits for its answer is asked anew, and a pause is over. */
  refresh(): void {
    this.pausedUntilMs = -Infinity;
    if (this.asked?.received === 0) this.askAgain(this.asked);
  }

  /** No answer is wanted any more. */
  giveUp(): void {
    if (this.asked) this.disconnect();
    this.asked = undefined;
    this.timer?.cancel();
  }

  close(): void {
    this.isClosed = true;
    this.asked = undefined;
    this.timer?.cancel();
    this.disconnect();
  }

  private send(): void {
    const { asked } = this;
    if (!asked) return;
    this.timer?.cancel();
    this.timer = this.clock.after(REST_MS, () => this.onTimer());
    this.socket ??= this.connect();
    // Rejects only where the socket is closed meanwhile; silence is dealt with by the timer.
    this.socket?.send(replayRequest(asked.from)).catch(() => undefined);
  }

  private connect(): Dealer | undefined {
    this.isUp = false;
    const isCurrent = (socket: Dealer): boolean => socket === this.socket;
    const events = {
      onUp: (socket: Dealer): void => {
        if (isCurrent(socket)) this.isUp = true;
      },
      onDown: (socket: Dealer): void => {
        if (isCurrent(socket) && this.isUp) this.onDown();
      },
    };
    try {
      return dealTo(this.zmq, this.endpoint, events, (socket, frames) =>
        isCurrent(socket) ? this.onFrames(frames) : undefined,
      );
    } catch {
      // An endpoint that cannot be read: as if nobody answered.
      return undefined;
    }
  }

  private disconnect(): void {
    const { socket } = this;
    this.socket = undefined;
    socket?.close();
  }

  private onFrames(frames: Buffer[]): Promise<void> | undefined {
    const { asked } = this;
    if (!asked) return undefined;
    const reply = parseReplay(frames);
    if (reply === undefined) return undefined;
    asked.lastMs = this.clock.nowMs();
    asked.received++;
    this.pauseMs = FIRST_PAUSE_MS;
    if (reply !== 'end') return this.listener.onBatch(reply);
    this.finish();
    this.listener.onEnd(false);
    return undefined;
  }

  private onDown(): void {
    this.isUp = false;
    this.listener.onDown();
    const { asked } = this;
    if (!asked) return;
    if (asked.received > 0) this.cut();
    else this.askAgain(asked);
  }

  private onTimer(): void {
    const { asked } = this;
    if (!asked) return;
    const waitMs = asked.lastMs + (asked.received > 0 ? REST_MS : ANSWER_MS) - this.clock.nowMs();
    if (waitMs > 0) {
      this.timer = this.clock.after(Math.min(waitMs, REST_MS), () => this.onTimer());
      return;
    }
    if (asked.received > 0) this.cut();
    else if (asked.tries < TRIES) this.askAgain({ ...asked, tries: asked.tries + 1 });
    else {
      this.finish();
      this.disconnect();
      this.pausedUntilMs = this.clock.nowMs() + this.pauseMs;
      this.pauseMs = Math.min(MAX_PAUSE_MS, this.pauseMs * 2);
      this.listener.onAbsent();
    }
  }

  private askAgain(asked: { from: number; tries: number }): void {
    this.disconnect();
    this.asked = { from: asked.from, tries: asked.tries, received: 0, lastMs: this.clock.nowMs() };
    this.send();
  }

  private cut(): void {
    this.finish();
    this.disconnect();
    this.listener.onEnd(true);
  }

  private finish(): void {
    this.asked = undefined;
    this.timer?.cancel();
  }
}
