import type { Peer } from '../../brain/connection.ts';
import type { BrainHub, HubHandlers } from '../../brain/hub.ts';
import { decode } from '../../shared/codec.ts';
import { silentLog } from '../../shared/env.ts';
import { FaultLog } from '../../shared/fault-log.ts';
import { FEATURE_SCHEMA } from '../../shared/features.ts';
import {
  type AgentMessage,
  type BrainMessage,
  type HelloMessage,
  PROTOCOL_OLDEST,
  PROTOCOL_VERSION,
} from '../../shared/protocol.ts';
import type { Sample } from '../../shared/sample.ts';
import { MAX_TABLE_BYTES, openTable, type RoutingTable, type SealedTable } from '../../shared/table.ts';
import type { SimClock } from './clock.ts';

/** One simulated agent's end of the link to the brain. */
export interface SimLink {
  readonly agent: string;
  /** what the brain sends, after its time on the way */
  onMessage(message: BrainMessage): void;
}

interface SimPeer extends Peer {
  readonly link: SimLink;
}

/**
 * The brain's hub on virtual time: messages are objects that arrive `delayMs` later, in order. Frames that the brain
 * passes on unread stand for the message that they came with, so that nothing is encoded and decoded once more for each
 * receiver.
 */
export class SimHub implements BrainHub {
  readonly faults = new FaultLog(silentLog);
  private readonly clock: SimClock;
  private readonly delayMs: number;
  private readonly handlers: HubHandlers;
  private readonly members = new Map<string, SimPeer>();
  private readonly frames = new WeakMap<Uint8Array, BrainMessage>();
  private readonly tables = new WeakMap<SealedTable, RoutingTable>();

  constructor(clock: SimClock, delayMs: number, handlers: HubHandlers) {
    this.clock = clock;
    this.delayMs = delayMs;
    this.handlers = handlers;
  }

  /** An agent connects; it is welcome at once. */
  join(link: SimLink, epoch: number): void {
    const hello: HelloMessage = {
      t: 'hello',
      protocol: PROTOCOL_VERSION,
      protocolOldest: PROTOCOL_OLDEST,
      featureSchema: FEATURE_SCHEMA,
      agent: link.agent,
      epoch,
      credential: link.agent,
      version: 'simulated',
      doorUrl: `http://${link.agent}:8080`,
      capabilities: [],
    };
    const peer: SimPeer = {
      agent: link.agent,
      epoch,
      hello,
      link,
      owed: { state: false, table: false, blocks: new Set() },
      slow: () => false,
      ready: () => true,
      send: (frame) => this.deliver(link, this.frames.get(frame) ?? (decode(frame, MAX_TABLE_BYTES) as BrainMessage)),
    };
    this.members.set(link.agent, peer);
    this.handlers.joined(peer);
  }

  /** A table that was broadcast, opened and validated once for all its receivers. */
  open(sealed: SealedTable): RoutingTable {
    let table = this.tables.get(sealed);
    if (!table) {
      table = openTable(sealed);
      this.tables.set(sealed, table);
    }
    return table;
  }

  /** From an agent to the brain. */
  send(agent: string, message: Exclude<AgentMessage, { t: 'hello' | 'samples' }>): void {
    this.clock.after(this.delayMs, () => {
      const peer = this.members.get(agent);
      if (!peer) return;
      const frame = Buffer.alloc(0);
      if (message.t === 'blocks') this.frames.set(frame, message);
      this.handlers.message(peer, message, frame);
    });
  }

  sendSamples(agent: string, batch: { batch: number; dropped: number; samples: Sample[] }): void {
    this.clock.after(this.delayMs, () => {
      const peer = this.members.get(agent);
      if (!peer) return;
      this.handlers.samples(peer, { ...batch, invalid: 0 });
      // The batch is acknowledged once it is stored, which is awaited.
      this.clock.settle(Promise.resolve());
    });
  }

  peers(): Peer[] {
    return [...this.members.values()];
  }

  peer(agent: string): Peer | undefined {
    return this.members.get(agent);
  }

  connectedForMs(): number | undefined {
    return undefined;
  }

  broadcast(message: BrainMessage): void {
    this.clock.after(this.delayMs, () => {
      for (const { link } of this.members.values()) link.onMessage(message);
    });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  private deliver(link: SimLink, message: BrainMessage): void {
    this.clock.after(this.delayMs, () => link.onMessage(message));
  }
}
