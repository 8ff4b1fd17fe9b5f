import type { WebSocket } from 'ws';
import type { Clock } from '../shared/env.ts';
import type { HelloMessage } from '../shared/protocol.ts';

/**
 * Close codes of ours; 1008 (malformed), 1009 (too large), 1011 (our fault) and 1001 (going away) are used as the
 * standard has them.
 */
export const CLOSE_REPLACED = 4001;
export const CLOSE_REFUSED = 4002;

export const PING_EVERY_MS = 5_000;
export const DEAD_AFTER_MS = 15_000;
/** Bytes waiting for one agent above which it counts as slow. */
export const BUFFER_MAX_BYTES = 16 * 1024 * 1024;
/** How long an agent may stay slow before it is dropped. */
export const SLOW_MAX_MS = 10_000;
const CLOSE_GRACE_MS = 2_000;

/** What a slow agent still has to get; filled up as soon as it reads again. */
export interface Owed {
  state: boolean;
  table: boolean;
  /** instances whose whole block view is due */
  blocks: Set<string>;
}

/** An agent that is welcome, as the rest of the brain sees it. */
export interface Peer {
  readonly agent: string;
  readonly epoch: number;
  readonly hello: HelloMessage;
  readonly owed: Owed;
  /** over the bound: send nothing that can be sent later in a shorter form */
  slow(): boolean;
  /** well under the bound: what is owed may be sent */
  ready(): boolean;
  send(frame: Uint8Array): void;
}

/** One WebSocket with bounded sending and liveness. It knows nothing of what the frames mean. */
export class Connection {
  readonly owed: Owed = { state: false, table: false, blocks: new Set() };
  private readonly socket: WebSocket;
  private readonly clock: Clock;
  private readonly bufferMaxBytes: number;
  private heardMs: number;
  private pingedMs: number;
  private slowSinceMs: number | null = null;

  constructor(socket: WebSocket, clock: Clock, bufferMaxBytes: number = BUFFER_MAX_BYTES) {
    this.socket = socket;
    this.clock = clock;
    this.bufferMaxBytes = bufferMaxBytes;
    this.heardMs = clock.nowMs();
    this.pingedMs = this.heardMs;
    const heard = (): void => void (this.heardMs = clock.nowMs());
    socket.on('pong', heard);
    socket.on('ping', heard);
    socket.on('message', heard);
  }

  send(frame: Uint8Array): void {
    if (this.socket.readyState === this.socket.OPEN) this.socket.send(frame, { binary: true });
  }

  slow(): boolean {
    return this.socket.bufferedAmount > this.bufferMaxBytes;
  }

  ready(): boolean {
    return this.socket.bufferedAmount <= this.bufferMaxBytes / 2;
  }

  /** Pings, and says why the peer must be dropped, if it must: called a few times a second. */
  check(): 'silent' | 'slow' | null {
    const now = this.clock.nowMs();
    if (now - this.heardMs > DEAD_AFTER_MS) return 'silent';
    if (!this.slow()) this.slowSinceMs = null;
    else if (now - (this.slowSinceMs ??= now) >= SLOW_MAX_MS) return 'slow';
    if (now - this.pingedMs >= PING_EVERY_MS && this.socket.readyState === this.socket.OPEN) {
      this.pingedMs = now;
      this.socket.ping();
    }
    return null;
  }

  /** Says good-bye; a peer that does not answer is cut off soon. */
  close(code: number, reason: string): void {
    this.socket.close(code, reason);
    this.clock.after(CLOSE_GRACE_MS, () => this.socket.terminate());
  }

  /** Cuts the connection without a word. */
  terminate(): void {
    this.socket.terminate();
  }
}
