import { Packr } from 'msgpackr';
import type { Publisher, Router } from 'zeromq';
import { errorMessage, LodestarError } from '../../shared/errors.ts';
import type { KvEvent } from './kv-events.ts';

export interface KvPublisherOptions {
  host: string;
  /** 0 takes a free one. */
  port: number;
  /** 0 takes a free one; undefined: no replay. */
  replayPort: number | undefined;
  /** tokens in a block */
  blockSize: number;
  wallMs: () => number;
  /** batches kept for replay; vLLM's default if absent */
  bufferSteps?: number | undefined;
  topic?: string | undefined;
  /** How an event is written: `map` as vLLM does now, `array` as it did before 0.23. */
  encoding?: 'map' | 'array' | undefined;
  dataParallelRank?: number | undefined;
  /** messages that wait for a slow subscriber before further ones are dropped; vLLM's default if absent */
  highWaterMark?: number | undefined;
}

const BUFFER_STEPS = 10_000;
const HIGH_WATER_MARK = 100_000;
const SEQ_BYTES = 8;
const END_MARKER = Buffer.alloc(SEQ_BYTES, 0xff);
const NOTHING = Buffer.alloc(0);
const KIND = 'full_attention';
const HASH_BITS = 53n;

const packr = new Packr({ useRecords: false, mapsAsObjects: true, variableMapSize: true });

interface Message {
  seq: Buffer;
  payload: Buffer;
}

/**
 * vLLM's ZmqEventPublisher (vllm/distributed/kv_events.py): a PUB socket for batches of KV events, numbered from 0, and
 * a ROUTER that sends the newest of them again.
 */
export class KvPublisher {
  readonly endpoint: string;
  readonly replayEndpoint: string | undefined;
  private readonly options: KvPublisherOptions;
  private readonly pub: Publisher;
  private readonly router: Router | undefined;
  private readonly topic: Buffer;
  private readonly unsent: Message[] = [];
  private readonly buffer: Message[] = [];
  private seq = 0;
  private isClosed = false;

  private constructor(options: KvPublisherOptions, pub: Publisher, router: Router | undefined) {
    this.options = options;
    this.pub = pub;
    this.router = router;
    this.topic = Buffer.from(options.topic ?? '');
    this.endpoint = pub.lastEndpoint ?? '';
    this.replayEndpoint = router?.lastEndpoint ?? undefined;
    if (router) void this.serveReplay(router);
  }

  /** Opens the ports. CONFIG_INVALID if one is taken. */
  static async start(options: KvPublisherOptions): Promise<KvPublisher> {
    const { Publisher, Router } = await import('zeromq');
    const pub = new Publisher({ linger: 0, sendHighWaterMark: options.highWaterMark ?? HIGH_WATER_MARK });
    const router = options.replayPort === undefined ? undefined : new Router({ linger: 0 });
    try {
      await bind(pub, options.host, options.port, '--kv-events-port');
      if (router) await bind(router, options.host, options.replayPort ?? 0, '--kv-replay-port');
    } catch (error) {
      pub.close();
      router?.close();
      throw error;
    }
    return new KvPublisher(options, pub, router);
  }

  /** Publishes what one step did to the cache. */
  publish(events: readonly KvEvent[]): void {
    const { options } = this;
    if (this.isClosed || events.length === 0) return;
    const write = options.encoding === 'array' ? asArray : asMap;
    const payload = packr.pack([
      options.wallMs() / 1000,
      events.map((event) => write(event, options.blockSize)),
      options.dataParallelRank ?? 0,
    ]);
    const seq = Buffer.alloc(SEQ_BYTES);
    seq.writeBigUInt64BE(BigInt(this.seq++));
    this.unsent.push({ seq, payload });
    if (this.unsent.length === 1) void this.send();
  }

  /** The library gives the ports back a moment later. */
  close(): void {
    this.isClosed = true;
    this.pub.close();
    this.router?.close();
  }

  /** A PUB socket takes one message at a time and never waits: for a subscriber that is too slow it drops. */
  private async send(): Promise<void> {
    try {
      for (let next = this.unsent[0]; next; next = this.unsent[0]) {
        await this.pub.send([this.topic, next.seq, next.payload]);
        this.unsent.shift();
        this.buffer.push(next);
        if (this.buffer.length > (this.options.bufferSteps ?? BUFFER_STEPS)) this.buffer.shift();
      }
    } catch (error) {
      if (!this.isClosed) throw error;
    }
  }

  private async serveReplay(router: Router): Promise<void> {
    try {
      for await (const [client, , start] of router) {
        if (start?.length !== SEQ_BYTES) continue;
        const from = start.readBigUInt64BE();
        for (const { seq, payload } of this.buffer.filter((batch) => batch.seq.readBigUInt64BE() >= from)) {
          await router.send([client as Buffer, NOTHING, this.topic, seq, payload]);
        }
        await router.send([client as Buffer, NOTHING, NOTHING, END_MARKER, NOTHING]);
      }
    } catch (error) {
      if (!this.isClosed) throw error;
    }
  }
}

async function bind(socket: Publisher | Router, host: string, port: number, flag: string): Promise<void> {
  try {
    await socket.bind(`tcp://${host}:${port}`);
  } catch (error) {
    throw new LodestarError(
      'CONFIG_INVALID',
      `port ${port} of ${host} cannot be opened (${errorMessage(error)}): choose another with ${flag}, or 0 for a free one`,
      { cause: error },
    );
  }
}

/** A hash of 64 bits whose low 53 are the engine's number, as vLLM publishes the low 64 bits of a digest. */
function wireHash(hash: number): bigint {
  return (BigInt((hash % 2047) + 1) << HASH_BITS) | BigInt(hash);
}

function asMap(event: KvEvent, blockSize: number): object {
  if (event.type === 'cleared') return { type: 'AllBlocksCleared' };
  if (event.type === 'removed')
    return { type: 'BlockRemoved', block_hashes: [wireHash(event.hash)], medium: 'GPU', group_idx: 0 };
  return {
    type: 'BlockStored',
    block_hashes: event.hashes.map(wireHash),
    parent_block_hash: event.parent === null ? null : wireHash(event.parent),
    token_ids: event.tokenIds,
    block_size: blockSize,
    lora_id: null,
    medium: 'GPU',
    lora_name: event.lora,
    extra_keys: event.extraKeys,
    group_idx: 0,
    kv_cache_spec_kind: KIND,
  };
}

function asArray(event: KvEvent, blockSize: number): unknown[] {
  const map = asMap(event, blockSize) as Record<string, unknown>;
  const values = Object.values(map);
  // Fields follow in the order of the map, then those that a map leaves out as empty.
  return event.type === 'stored' ? [...values, null, null] : event.type === 'removed' ? [...values, null] : values;
}
