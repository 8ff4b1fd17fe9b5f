import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import { decode, encode } from '../shared/codec.ts';
import type { Env, Timer } from '../shared/env.ts';
import { errorMessage, LodestarError } from '../shared/errors.ts';
import { FaultLog } from '../shared/fault-log.ts';
import {
  type AgentMessage,
  type BrainMessage,
  type HelloMessage,
  parseAgentMessage,
  PROTOCOL_VERSION,
} from '../shared/protocol.ts';
import type { Fault } from '../shared/report.ts';
import type { SealedTable } from '../shared/table.ts';
import { isFleetToken } from '../shared/token.ts';
import { admit, helloHeadSchema, negotiate, noteDeparture, type Refusal } from './admission.ts';
import { CLOSE_REFUSED, CLOSE_REPLACED, Connection, type Peer } from './connection.ts';
import type { Counters } from './counters.ts';
import { parseSampleBatch, type SampleBatch } from './sample-batch.ts';
import type { BrainStore } from './store.ts';

export const AGENT_PATH = '/lodestar/agent';
const HELLO_WITHIN_MS = 5_000;
const CHECK_EVERY_MS = 250;
/** An agent with the wrong token asks again for ever: its warnings come at most this often. */
const UNAUTHORISED_LOG_MS = 10_000;
/** Connections beyond the agents that may be in their hello at once. */
const HANDSHAKES_MAX = 64;

export interface HubOptions {
  token: string;
  maxAgents: number;
  maxFrameBytes: number;
  /** bytes that may wait for one agent; the default suits all but tests */
  bufferMaxBytes?: number;
}

/**
 * What the rest of the brain does with the agents. A handler that throws costs the peer its connection, never the
 * brain.
 */
export interface HubHandlers {
  joined(peer: Peer): void;
  message(peer: Peer, message: Exclude<AgentMessage, { t: 'hello' | 'samples' }>, frame: Buffer): void;
  samples(peer: Peer, batch: SampleBatch): void;
  /** the peer reads again: send what it is owed, while it is ready */
  caughtUp(peer: Peer): void;
}

/** What a welcome carries. */
export interface WelcomeSource {
  brainEpoch: number;
  salt: string;
  table(): SealedTable | null;
}

/** What the brain uses of its hub. */
export type BrainHub = Pick<Hub, 'faults' | 'peers' | 'peer' | 'connectedForMs' | 'broadcast' | 'close'>;

interface Member {
  peer: Peer;
  connection: Connection;
  connectedMs: number;
}

/** Accepts agents on `/lodestar/agent`: token, hello, admission, liveness, and dropping those who misbehave. */
export class Hub {
  readonly faults: FaultLog;
  private readonly options: HubOptions;
  private readonly env: Env;
  private readonly store: BrainStore;
  private readonly counters: Counters;
  private readonly handlers: HubHandlers;
  private readonly welcome: WelcomeSource;
  private readonly wss: WebSocketServer;
  private readonly members = new Map<string, Member>();
  private readonly connections = new Set<Connection>();
  private readonly checks: Timer;
  private readonly unauthorised = { unlogged: 0, loggedMs: -Infinity };

  constructor(
    options: HubOptions,
    env: Env,
    store: BrainStore,
    counters: Counters,
    welcome: WelcomeSource,
    handlers: HubHandlers,
  ) {
    this.options = options;
    this.env = env;
    this.faults = new FaultLog(env.log);
    this.store = store;
    this.counters = counters;
    this.handlers = handlers;
    this.welcome = welcome;
    this.wss = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: options.maxFrameBytes });
    this.checks = env.clock.every(CHECK_EVERY_MS, () => this.check());
  }

  /** Serves WebSocket upgrades of an HTTP server. */
  attach(server: Server): void {
    server.on('upgrade', (request, socket, head) => this.upgrade(request, socket, head));
  }

  peers(): Peer[] {
    return [...this.members.values()].map((member) => member.peer);
  }

  peer(agent: string): Peer | undefined {
    return this.members.get(agent)?.peer;
  }

  /** Milliseconds for which the agent has been connected; undefined if it is not. */
  connectedForMs(agent: string): number | undefined {
    const member = this.members.get(agent);
    return member && this.env.clock.nowMs() - member.connectedMs;
  }

  /**
   * Sends one message to every agent, encoded once; `owe` marks what a slow one misses. `earlier`: how the message
   * reads for agents of earlier protocols, where that differs.
   */
  broadcast(message: BrainMessage, owe: (peer: Peer) => void, earlier: BrainMessage = message): void {
    const frame = encode(message);
    let earlierFrame = earlier === message ? frame : undefined;
    for (const { peer } of this.members.values()) {
      if (peer.slow()) owe(peer);
      else if (peer.hello.protocol >= PROTOCOL_VERSION) peer.send(frame);
      else peer.send((earlierFrame ??= encode(earlier)));
    }
  }

  /** Says good-bye to everyone and stops. */
  async close(): Promise<void> {
    this.checks.cancel();
    for (const { peer } of this.members.values()) noteDeparture(peer.agent, this.store, this.env.clock);
    this.members.clear();
    for (const client of this.wss.clients) client.close(1001, 'the brain is going away');
    // The close frames are handed to the kernel before the sockets are cut.
    await new Promise((resolve) => setImmediate(resolve));
    for (const client of this.wss.clients) client.terminate();
    this.wss.close();
  }

  private upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const path = (request.url ?? '').split('?')[0];
    socket.on('error', () => socket.destroy());
    if (path !== AGENT_PATH) return refuseUpgrade(socket, '404 Not Found', `agents connect to ${AGENT_PATH}`);
    if (!isFleetToken(request.headers.authorization, this.options.token)) {
      this.noteUnauthorised(request.socket.remoteAddress);
      return refuseUpgrade(
        socket,
        '401 Unauthorized',
        "the authorization header must be `Bearer` and the fleet's token",
      );
    }
    if (this.connections.size >= this.options.maxAgents + HANDSHAKES_MAX)
      return refuseUpgrade(socket, '503 Service Unavailable', 'too many connections');
    this.wss.handleUpgrade(request, socket, head, (ws) => this.accept(ws));
  }

  private noteUnauthorised(from: string | undefined): void {
    this.counters.unauthorized += 1;
    const { unauthorised } = this;
    unauthorised.unlogged += 1;
    const nowMs = this.env.clock.nowMs();
    if (nowMs - unauthorised.loggedMs < UNAUTHORISED_LOG_MS) return;
    this.env.log.warn(
      { from, count: unauthorised.unlogged },
      'refused connections without the fleet token; agent and brain must have the same `token`',
    );
    unauthorised.unlogged = 0;
    unauthorised.loggedMs = nowMs;
  }

  private accept(ws: WebSocket): void {
    const connection = new Connection(ws, this.env.clock, this.options.bufferMaxBytes);
    this.connections.add(connection);
    let peer: Peer | undefined;
    const helloTimer = this.env.clock.after(HELLO_WITHIN_MS, () => connection.close(1008, 'no hello in time'));
    ws.on('message', (data: Buffer, binary: boolean) => {
      this.counters.framesReceived += 1;
      try {
        if (!binary) throw new LodestarError('WIRE_MALFORMED', 'frames are binary');
        if (peer && this.members.get(peer.agent)?.connection !== connection) return;
        if (peer) this.receive(peer, data);
        else {
          helloTimer.cancel();
          peer = this.greet(connection, data);
        }
      } catch (error) {
        this.dropFor(connection, peer, error);
      }
    });
    ws.on('error', (error: Error & { code?: string }) => {
      if (error.code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH') this.counters.framesOversized += 1;
      else if (error.code?.startsWith('WS_ERR_')) this.counters.framesMalformed += 1;
      this.env.log.warn({ agent: peer?.agent, error: error.message }, 'connection of an agent failed');
    });
    ws.on('close', (code: number) => {
      helloTimer.cancel();
      this.connections.delete(connection);
      if (peer) this.leave(peer, connection, code);
    });
  }

  /** First frame of a connection. Returns the peer if it may stay. */
  private greet(connection: Connection, data: Buffer): Peer | undefined {
    const raw = decode(data, this.options.maxFrameBytes);
    const head = helloHeadSchema.safeParse(raw);
    if (!head.success) throw new LodestarError('WIRE_MALFORMED', 'the first message must be hello');
    const protocol = negotiate(head.data);
    if (typeof protocol !== 'number') return this.refuse(connection, protocol, raw);
    const hello = parseAgentMessage(raw) as HelloMessage;
    const present = this.members.get(hello.agent);
    const refusal = admit(hello, this.store, this.env.clock, present?.peer.epoch) ?? this.crowded(present);
    if (refusal) return this.refuse(connection, refusal, raw);
    if (present) this.replace(present);
    const peer: Peer = {
      agent: hello.agent,
      epoch: hello.epoch,
      hello,
      owed: connection.owed,
      slow: () => connection.slow(),
      ready: () => connection.ready(),
      send: (frame) => connection.send(frame),
    };
    this.members.set(hello.agent, { peer, connection, connectedMs: this.env.clock.nowMs() });
    const { brainEpoch, salt, table } = this.welcome;
    peer.send(encode({ t: 'welcome', protocol, brainEpoch, salt, table: table() } satisfies BrainMessage));
    this.env.log.info(
      { agent: hello.agent, epoch: hello.epoch, version: hello.version, doorUrl: hello.doorUrl },
      'agent joined',
    );
    this.handlers.joined(peer);
    return peer;
  }

  private crowded(present: Member | undefined): Refusal | null {
    if (present || this.members.size < this.options.maxAgents) return null;
    return { code: 'too-many-agents', reason: `${this.options.maxAgents} agents are connected: raise brain.maxAgents` };
  }

  private refuse(connection: Connection, refusal: Refusal, raw: unknown): undefined {
    this.counters.peersRefused += 1;
    this.env.log.warn(
      { agent: (raw as { agent?: unknown }).agent, code: refusal.code },
      `agent refused: ${refusal.reason}`,
    );
    connection.send(encode({ t: 'refuse', ...refusal } satisfies BrainMessage));
    connection.close(CLOSE_REFUSED, refusal.code);
  }

  private replace(old: Member): void {
    this.counters.peersReplaced += 1;
    this.env.log.info(
      { agent: old.peer.agent, epoch: old.peer.epoch },
      'connection replaced by a newer one of the same agent',
    );
    this.leave(old.peer, old.connection, CLOSE_REPLACED);
    old.connection.close(CLOSE_REPLACED, 'replaced');
  }

  private receive(peer: Peer, data: Buffer): void {
    const raw = decode(data, this.options.maxFrameBytes);
    const note = (fault: Fault): void => {
      this.counters.reportFaults += 1;
      this.faults.note(peer.agent, fault);
    };
    const { t, instance } = (raw ?? {}) as { t?: unknown; instance?: unknown };
    if (t === 'samples') {
      const batch = parseSampleBatch(raw);
      if (batch.problem !== undefined) this.faults.note(peer.agent, { instance: undefined, problem: batch.problem });
      return this.handlers.samples(peer, batch);
    }
    let message: AgentMessage;
    try {
      message = parseAgentMessage(raw, note);
    } catch (error) {
      // A delta that is left out shows as a gap, for which there is a remedy.
      if (t !== 'blocks') throw error;
      return note({
        instance: typeof instance === 'string' ? instance.slice(0, 256) : undefined,
        problem: errorMessage(error),
      });
    }
    if (message.t === 'hello' || message.t === 'samples')
      throw new LodestarError('WIRE_MALFORMED', 'hello is the first message and comes once');
    this.handlers.message(peer, message, data);
  }

  private dropFor(connection: Connection, peer: Peer | undefined, error: unknown): void {
    const code = error instanceof LodestarError ? error.code : undefined;
    this.env.log.warn({ agent: peer?.agent, code }, `dropping an agent: ${errorMessage(error)}`);
    if (code === 'WIRE_TOO_LARGE') {
      this.counters.framesOversized += 1;
      connection.close(1009, 'frame too large');
    } else if (code === 'WIRE_MALFORMED') {
      this.counters.framesMalformed += 1;
      connection.close(1008, 'malformed frame');
    } else {
      this.env.log.error({ err: error }, 'a message could not be handled');
      connection.close(1011, 'internal error');
    }
  }

  private leave(peer: Peer, connection: Connection, code: number): void {
    if (this.members.get(peer.agent)?.connection !== connection) return;
    this.members.delete(peer.agent);
    noteDeparture(peer.agent, this.store, this.env.clock);
    this.env.log.info({ agent: peer.agent, code }, 'agent left');
  }

  private check(): void {
    for (const connection of this.connections) {
      const why = connection.check();
      if (!why) continue;
      this.connections.delete(connection);
      this.counters.peersDropped += 1;
      this.env.log.warn(
        `dropping a connection: ${why === 'slow' ? 'it does not read what is sent' : 'nothing was heard of it'}`,
      );
      connection.terminate();
    }
    for (const { peer } of this.members.values()) {
      const { state, table, blocks } = peer.owed;
      if ((state || table || blocks.size > 0) && peer.ready()) this.handlers.caughtUp(peer);
    }
  }
}

function refuseUpgrade(socket: Duplex, status: string, reason: string): void {
  const body = JSON.stringify({ error: { message: reason } });
  socket.end(
    `HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}
