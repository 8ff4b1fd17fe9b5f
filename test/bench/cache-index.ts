import { BlockIndex, type PrefixMatch } from '../../agent/entry/cache-index/block-index.ts';
import { Expectations } from '../../agent/entry/cache-index/expectations.ts';
import { realClock, type Rng, seededRng } from '../../shared/env.ts';
import { type Figure, quantileOf } from './figure.ts';

const BLOCKS = 2_000_000;
/** 32k tokens, 16 a block. */
const PROMPT_BLOCKS = 2048;
const LOOKUPS = 3000;
const WARM_UP = 500;
const SYSTEM_PROMPTS = 50;
const TURNOVERS = 20_000;
const P50_US = 100;
const P99_US = 300;
const BYTES = 40;

/**
 * The index of all caches at 2 million blocks: look-ups of prompts of 32k tokens, what changes cost and how long the
 * longest of them takes, bytes a block.
 *
 * The fleet: conversations of 2048 blocks, each at one to three instances, behind system prompts of up to 100 blocks
 * that many instances share; then ends of conversations are evicted and others take their room, until all memory has
 * been used again and again.
 */
export function cacheIndexFigures(): Figure[] {
  const fleet = new CachedFleet(64, seededRng(1));
  const growth = fleet.fill();
  const figures = [...lookups('long prompts at few instances', fleet.index, () => fleet.someConversation())];
  const churn = fleet.turnOver();
  figures.push(...lookups('the same after 20,000 evictions', fleet.index, () => fleet.someConversation()));
  const everywhere = fleet.share(200);
  figures.push(
    ...lookups('all instances hold all of it', fleet.index, (i) => everywhere[i % everywhere.length] as Float64Array),
  );
  const unknown = Array.from({ length: 200 }, () => fleet.newBlocks(PROMPT_BLOCKS));
  figures.push(
    ...lookups('no instance holds any of it', fleet.index, (i) => unknown[i % unknown.length] as Float64Array),
  );
  figures.push({ name: 'growth from 1 to 2 million: longest 2048 blocks added', value: growth.longestMs, unit: 'ms' });
  figures.push(
    { name: 'full: block added', value: churn.addNs, unit: 'ns' },
    { name: 'full: block removed', value: churn.removeNs, unit: 'ns' },
  );
  figures.push(...resets(fleet), admission(fleet));
  figures.push({
    name: 'bytes a block, 64 instances, most from 1 to 2 million',
    value: growth.mostBytes,
    unit: 'B',
    target: `<= ${BYTES} B`,
    ok: growth.mostBytes <= BYTES,
  });
  const wide = new CachedFleet(256, seededRng(2));
  const wideGrowth = wide.fill();
  figures.push({
    name: 'bytes a block, 256 instances, most from 1 to 2 million',
    value: wideGrowth.mostBytes,
    unit: 'B',
  });
  figures.push(...lookups('256 instances, long prompts at few', wide.index, () => wide.someConversation()));
  figures.push(...scattered(fleet));
  return figures;
}

function lookups(name: string, index: BlockIndex, prompt: (i: number) => Float64Array): Figure[] {
  const into: PrefixMatch = { depth: new Uint32Array(512), tokens: new Uint32Array(512) };
  const samples: number[] = [];
  for (let i = 0; i < LOOKUPS + WARM_UP; i++) {
    const hashes = prompt(i);
    const startMs = performance.now();
    index.match(hashes, into);
    if (i >= WARM_UP) samples.push((performance.now() - startMs) * 1000);
  }
  const [p50, p99] = [quantileOf(samples, 0.5), quantileOf(samples, 0.99)];
  return [
    { name: `${name}, p50`, value: p50, unit: 'µs', target: `<= ${P50_US} µs`, ok: p50 <= P50_US },
    { name: `${name}, p99`, value: p99, unit: 'µs', target: `<= ${P99_US} µs`, ok: p99 <= P99_US },
  ];
}

/**
 * The worst for the memory: blocks that came in no order, so that none lies where the one before it lets guess. No
 * fleet does this; there is no target.
 */
function scattered(fleet: CachedFleet): Figure[] {
  const { conversations } = fleet;
  const order = Float64Array.from({ length: conversations.length * PROMPT_BLOCKS }, (_, i) => i);
  fleet.shuffle(order);
  const index = new BlockIndex();
  for (const at of order) {
    const { hashes, holders } = conversations[Math.floor(at / PROMPT_BLOCKS)] as Conversation;
    index.add(holders[0] as string, hashes[at % PROMPT_BLOCKS] as number);
  }
  return lookups('blocks that came in no order', index, () => fleet.someConversation()).map(
    ({ name, value, unit }) => ({ name, value, unit }),
  );
}

/** All doors send their whole views again, one after the other, as when the brain is back. */
function resets({ index, ids, conversations }: CachedFleet): Figure[] {
  let longestMs = 0;
  for (const id of ids) {
    const held = conversations.filter(({ holders }) => holders.includes(id));
    const startMs = performance.now();
    index.clear(id);
    longestMs = Math.max(longestMs, performance.now() - startMs);
    for (const { hashes } of held) {
      const addMs = performance.now();
      index.addAll(id, hashes, []);
      longestMs = Math.max(longestMs, performance.now() - addMs);
    }
  }
  return [{ name: 'all doors reset: longest pause', value: longestMs, unit: 'ms' }];
}

/**
 * What an admitted prompt of 2048 blocks costs: expected, asked for by the next request, and taken back, among 100
 * siblings.
 */
function admission(fleet: CachedFleet): Figure {
  const expectations = new Expectations(realClock);
  const head = fleet.newBlocks(1000);
  const siblings = Array.from({ length: 100 }, () => joined(head, fleet.newBlocks(PROMPT_BLOCKS - 1000)));
  for (const hashes of siblings) expectations.expect(hashes, 1);
  const samples = Array.from({ length: LOOKUPS }, () => {
    const hashes = joined(head, fleet.newBlocks(PROMPT_BLOCKS - 1000));
    const startMs = performance.now();
    const expectation = expectations.expect(hashes, 1);
    expectations.match(hashes);
    expectations.end(expectation, false);
    return (performance.now() - startMs) * 1000;
  });
  const p99 = quantileOf(samples, 0.99);
  return {
    name: 'expecting a prompt of 2048 blocks, p99',
    value: p99,
    unit: 'µs',
    target: '<= 100 µs',
    ok: p99 <= 100,
  };
}

interface Conversation {
  hashes: Float64Array;
  tokens: Float64Array;
  holders: string[];
}

/** An index filled as a fleet would. */
class CachedFleet {
  readonly index = new BlockIndex();
  readonly ids: string[];
  readonly conversations: Conversation[] = [];
  private readonly rng: Rng;
  private readonly systemPrompts: Float64Array[];

  constructor(instances: number, rng: Rng) {
    this.rng = rng;
    this.ids = Array.from({ length: instances }, (_, i) => `i${i}`);
    this.systemPrompts = Array.from({ length: SYSTEM_PROMPTS }, () => this.newBlocks(1 + this.below(100)));
    for (const id of this.ids) this.index.column(id);
  }

  fill(): { longestMs: number; mostBytes: number } {
    let longestMs = 0;
    let mostBytes = 0;
    while (this.index.blockCount < BLOCKS) {
      const head = this.systemPrompts[this.below(SYSTEM_PROMPTS)] as Float64Array;
      const hashes = joined(head, this.newBlocks(PROMPT_BLOCKS - head.length));
      const holders = Array.from(
        { length: 1 + (this.rng() < 0.2 ? this.below(3) : 0) },
        () => this.ids[this.below(this.ids.length)] as string,
      );
      const conversation = { hashes, tokens: hashes.map((_, i) => 16 * (i + 1)), holders };
      this.conversations.push(conversation);
      for (const holder of holders) {
        const startMs = performance.now();
        this.index.addAll(holder, conversation.hashes, conversation.tokens);
        if (this.index.blockCount > BLOCKS / 2) longestMs = Math.max(longestMs, performance.now() - startMs);
      }
      if (this.index.blockCount > BLOCKS / 2) mostBytes = Math.max(mostBytes, this.index.bytes / this.index.blockCount);
    }
    return { longestMs, mostBytes };
  }

  /** The end of a conversation is evicted, last block first; it then goes on differently, as another one would. */
  turnOver(): { addNs: number; removeNs: number } {
    let addMs = 0;
    let removeMs = 0;
    let blocks = 0;
    for (let i = 0; i < TURNOVERS; i++) {
      const conversation = this.conversations[this.below(this.conversations.length)] as Conversation;
      const from = 100 + this.below(PROMPT_BLOCKS - 100);
      const gone = conversation.hashes.slice(from).toReversed();
      const come = this.newBlocks(gone.length);
      for (const holder of new Set(conversation.holders)) {
        const startMs = performance.now();
        this.index.removeAll(holder, gone);
        const betweenMs = performance.now();
        this.index.addAll(holder, come, conversation.tokens.subarray(from));
        removeMs += betweenMs - startMs;
        addMs += performance.now() - betweenMs;
        blocks += gone.length;
      }
      conversation.hashes = joined(conversation.hashes.subarray(0, from), come);
    }
    return { addNs: (addMs * 1e6) / blocks, removeNs: (removeMs * 1e6) / blocks };
  }

  /** Prompts that every instance holds. */
  share(n: number): Float64Array[] {
    const prompts = Array.from({ length: n }, () => this.someConversation());
    for (const hashes of prompts) for (const id of this.ids) this.index.addAll(id, hashes, []);
    return prompts;
  }

  someConversation(): Float64Array {
    return (this.conversations[this.below(this.conversations.length)] as Conversation).hashes;
  }

  newBlocks(n: number): Float64Array {
    return Float64Array.from({ length: n }, () => this.below(2 ** 21) * 2 ** 32 + this.below(2 ** 32) || 1);
  }

  shuffle(items: Float64Array): void {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [items[i], items[j]] = [items[j] as number, items[i] as number];
    }
  }

  private below(n: number): number {
    return Math.floor(this.rng() * n);
  }
}

function joined(head: Float64Array, rest: Float64Array): Float64Array {
  const whole = new Float64Array(head.length + rest.length);
  whole.set(head);
  whole.set(rest, head.length);
  return whole;
}
