import type { Dealer, Socket, Subscriber } from 'zeromq';
import type { Batch } from './batches.ts';

/** The ZeroMQ library. It has a native part, so only what needs it loads it. */
export type Zmq = typeof import('zeromq');

/** The library's own default of 1,000 messages loses some of a burst. */
const RECEIVE_MESSAGES = 100_000;
/** Far above a batch: one block of 16 tokens takes about 150 bytes. A larger message ends its connection. */
const MAX_MESSAGE_BYTES = 64 << 20;
/**
 * A link that swallows what is sent is noticed after this long, and one that works again is used again after about as
 * long, ms.
 */
const HEARTBEAT_MS = 500;
const SILENCE_MS = 1500;
const CONNECT_MS = 1000;
const RECONNECT_MS = 100;

const SEQ_BYTES = 8;
const END_MARKER = 0xffff_ffff_ffff_ffffn;

/** Loads ZeroMQ. Rejects where its binary is absent for this platform. */
export async function loadZmq(): Promise<Zmq> {
  return await import('zeromq');
}

/**
 * A socket that hears all topics. What becomes of its connection is told to `events`, what it receives given to `take`.
 * Throws if the endpoint cannot be read.
 */
export function subscribeTo(
  zmq: Zmq,
  endpoint: string,
  events: ConnectionEvents<Subscriber>,
  take: Taker<Subscriber>,
): Subscriber {
  const socket = new zmq.Subscriber(socketOptions(endpoint));
  socket.subscribe('');
  return run(socket, endpoint, events, take);
}

/** A socket to ask a replay endpoint by. A REQ socket would take the first of many answers only. */
export function dealTo(zmq: Zmq, endpoint: string, events: ConnectionEvents<Dealer>, take: Taker<Dealer>): Dealer {
  return run(new zmq.Dealer(socketOptions(endpoint)), endpoint, events, take);
}

function socketOptions(endpoint: string) {
  return {
    linger: 0,
    ipv6: endpoint.includes('['),
    receiveHighWaterMark: RECEIVE_MESSAGES,
    maxMessageSize: MAX_MESSAGE_BYTES,
    heartbeatInterval: HEARTBEAT_MS,
    heartbeatTimeout: SILENCE_MS,
    connectTimeout: CONNECT_MS,
    handshakeInterval: CONNECT_MS,
    reconnectInterval: RECONNECT_MS,
  };
}

function run<S extends Subscriber | Dealer>(
  socket: S,
  endpoint: string,
  events: ConnectionEvents<S>,
  take: Taker<S>,
): S {
  // Before it connects, or a quick connection goes unseen.
  void watchConnection(socket, events);
  try {
    socket.connect(endpoint);
  } catch (error) {
    socket.close();
    throw error;
  }
  void readAll(socket, events, take);
  return socket;
}

/** A message of the stream: topic, sequence number, payload. undefined for what is not vLLM's. */
export function parseLive(frames: readonly Buffer[]): Batch | undefined {
  return frames.length === 3 ? batchOf(frames) : undefined;
}

/**
 * A message of the replay socket. It has a topic since vLLM 0.25, so it is read from its end: sequence number, payload.
 */
export function parseReplay(frames: readonly Buffer[]): Batch | 'end' | undefined {
  const seq = frames.at(-2);
  if (frames.length >= 2 && seq?.length === SEQ_BYTES && seq.readBigUInt64BE() === END_MARKER) return 'end';
  return frames.length >= 2 ? batchOf(frames) : undefined;
}

/** The question for all batches from `seq` on. */
export function replayRequest(seq: number): Buffer[] {
  const bytes = Buffer.alloc(SEQ_BYTES);
  bytes.writeBigUInt64BE(BigInt(seq));
  return [Buffer.alloc(0), bytes];
}

function batchOf(frames: readonly Buffer[]): Batch | undefined {
  const seq = frames.at(-2);
  const payload = frames.at(-1);
  if (!payload || seq?.length !== SEQ_BYTES) return undefined;
  const number = Number(seq.readBigUInt64BE());
  return Number.isSafeInteger(number) ? { seq: number, payload } : undefined;
}

/** What becomes of a socket's connection, as the library tells it. */
export interface ConnectionEvents<S> {
  /** Something accepted the connection; whether it speaks ZeroMQ shows next. */
  onAccepted?(socket: S): void;
  /** It is there and speaks ZeroMQ. */
  onUp(socket: S): void;
  /** It is gone, or what was reached is of another kind. */
  onDown(socket: S): void;
}

/** Takes a message. The next is read when a returned promise has settled: what is not taken yet waits in the socket. */
export type Taker<S> = (socket: S, frames: Buffer[]) => Promise<void> | undefined;

async function watchConnection<S extends Socket>(
  socket: S,
  { onAccepted, onUp, onDown }: ConnectionEvents<S>,
): Promise<void> {
  try {
    for await (const event of socket.events) {
      if (event.type === 'connect') onAccepted?.(socket);
      else if (event.type === 'handshake') onUp(socket);
      else if (event.type === 'disconnect') onDown(socket);
      else if (event.type === 'end') return;
    }
  } catch {
    // The socket was closed while it was watched.
  }
}

async function readAll<S extends Subscriber | Dealer>(
  socket: S,
  events: ConnectionEvents<S>,
  take: Taker<S>,
): Promise<void> {
  for (;;) {
    let frames: Buffer[];
    try {
      frames = await socket.receive();
    } catch {
      if (socket.closed) return;
      // A socket that can be read no more is as good as a connection that is gone.
      socket.close();
      events.onDown(socket);
      return;
    }
    const turn = take(socket, frames);
    if (turn) await turn;
  }
}
