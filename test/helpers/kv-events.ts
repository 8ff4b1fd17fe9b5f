import type { KvEvent, KvEventSink } from '../../agent/door/kv-events/kv-event.ts';
import { KvEventSubscriber, type KvEventSubscriberOptions } from '../../agent/door/kv-events/subscriber.ts';
import { KvPublisher, type KvPublisherOptions } from '../../sim/engine/kv-publisher.ts';
import { LodestarError } from '../../shared/errors.ts';
import { logSpy } from './log-spy.ts';
import { VirtualClock } from './virtual-clock.ts';

/** A sink that keeps what it heard: histories, each with the first hash of each of its events. */
export class RecordingSink implements KvEventSink {
  readonly histories: { complete: boolean; hashes: number[] }[] = [];
  readonly problems: string[] = [];
  /** `begin`, `fail` and the hashes of events, in order */
  readonly calls: (string | number)[] = [];

  begin(complete: boolean): void {
    this.histories.push({ complete, hashes: [] });
    this.calls.push(`begin ${complete}`);
  }

  apply(events: readonly KvEvent[]): void {
    for (const event of events) {
      const hash = event.type === 'cleared' ? -1 : (event.hashes[0] as number);
      this.histories.at(-1)!.hashes.push(hash);
      this.calls.push(hash);
    }
  }

  fail(problem: string): void {
    this.problems.push(problem);
    this.calls.push('fail');
  }

  get now(): { complete: boolean; hashes: number[] } {
    return this.histories.at(-1) ?? { complete: false, hashes: [] };
  }
}

/** Publishers, and subscribers with their sink and log, on one virtual clock; all closed by `close`. */
export class KvRig {
  readonly clock = new VirtualClock();
  readonly sink = new RecordingSink();
  private readonly spy = logSpy();
  private readonly closers: (() => void | Promise<void>)[] = [];

  get lines(): { level: number; msg: string }[] {
    return this.spy.lines;
  }

  /** Warnings so far. */
  get warnings(): string[] {
    return this.lines.filter((line) => line.level >= 40).map((line) => line.msg);
  }

  /** A publisher with replay on free ports. */
  async publisher(options: Partial<KvPublisherOptions> = {}): Promise<KvPublisher> {
    const publisher = await this.bind({
      host: '127.0.0.1',
      port: 0,
      replayPort: 0,
      blockSize: 4,
      wallMs: () => this.clock.wallMs(),
      ...options,
    });
    this.closers.push(() => publisher.close());
    return publisher;
  }

  /** A started subscriber; without `replayEndpoint` it has none. */
  subscriber(options: Partial<KvEventSubscriberOptions> & { endpoint: string }): KvEventSubscriber {
    const subscriber = new KvEventSubscriber({
      instance: 'i',
      replayEndpoint: undefined,
      rank: undefined,
      sink: this.sink,
      env: { clock: this.clock, log: this.spy.log },
      ...options,
    });
    this.closers.unshift(() => subscriber.stop());
    subscriber.start();
    return subscriber;
  }

  /** A port that was just given up is free only a moment later. */
  private async bind(options: KvPublisherOptions): Promise<KvPublisher> {
    for (;;) {
      try {
        return await KvPublisher.start(options);
      } catch (error) {
        if (options.port === 0 || !(error instanceof LodestarError)) throw error;
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
  }

  onClose(close: () => void | Promise<void>): void {
    this.closers.push(close);
  }

  /**
   * Lets sockets go on until `condition` holds. Virtual time stands still: what connects does so in real time, which
   * waits of the code must not outrun.
   */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise((resolve) => setImmediate(resolve));
  }

  /** The same for what waits of the code bring about: time goes on where it comes to nothing else. */
  async untilTime(condition: () => boolean): Promise<void> {
    while (!condition()) {
      // A good many turns of real I/O to a moment of virtual time.
      for (let turn = 0; turn < 50 && !condition(); turn++) await new Promise((resolve) => setImmediate(resolve));
      this.clock.advance(1);
    }
  }

  async close(): Promise<void> {
    for (const close of this.closers.splice(0)) await close();
  }
}

/** One event that can be told from others by its number. */
export function stored(hash: number): Parameters<KvPublisher['publish']>[0] {
  return [{ type: 'stored', hashes: [hash], parent: null, tokenIds: [hash, 1, 2, 3], lora: null, extraKeys: [null] }];
}

/** Numbers from `from` to before `end`. */
export function range(from: number, end: number): number[] {
  return Array.from({ length: end - from }, (_, at) => from + at);
}

/** The port of an endpoint. */
export function portOf(endpoint: string): number {
  return Number(endpoint.slice(endpoint.lastIndexOf(':') + 1));
}
