import { expect, test } from 'vitest';
import type { KvEvent } from '../../../../agent/door/kv-events/kv-event.ts';
import type { CachePrompt } from '../../../../agent/request/prompt.ts';
import type { Sequence } from '../../../../agent/door/cache/records.ts';
import { type Rng, seededRng } from '../../../../shared/env.ts';
import { CacheRig, idsPrompt, removedBlocks, storedRun, textPrompt, tokenIds } from '../../../helpers/cache-rig.ts';
import { below, pick } from '../../../helpers/random.ts';

const OPERATIONS = 4000;
const COUNT = 65;
const BLOCK_TOKENS = 16;
const MAX_ENGINE_BLOCKS = 64;

/** Random requests and random events of an engine that has lost its mind, on both accounts. */
class Chaos extends CacheRig {
  private readonly rng: Rng;
  private readonly prompts: CachePrompt[] = [];
  /** hashes that the engine holds, oldest first, one entry a copy */
  private readonly engineHeld: number[] = [];

  constructor(seed: number) {
    super(COUNT, BLOCK_TOKENS);
    this.rng = seededRng(seed);
    const texts = Array.from({ length: 4 }, () => this.words(600));
    // Beginnings in common that part inside blocks, and prompts shorter than a block.
    for (let n = 0; n < 24; n++)
      this.prompts.push(
        textPrompt(pick(this.rng, texts).slice(0, 20 + below(this.rng, 500)) + this.words(below(this.rng, 900))),
      );
    for (let n = 0; n < 6; n++)
      this.prompts.push(idsPrompt(Array.from({ length: 8 + below(this.rng, 200) }, (_, at) => at % (n + 3))));
    for (const { text } of this.prompts.slice(0, 18)) this.learn(text);
  }

  step(): void {
    const chance = this.rng();
    this.nowMs += below(this.rng, 400);
    if (chance < 0.3) this.open();
    else if (chance < 0.4) this.withLive((one) => void this.pool.grow(one, 1 + below(this.rng, 30)));
    else if (chance < 0.6) this.withLive((one) => this.close(one));
    else if (chance < 0.64) this.withLive((one) => this.drop(one));
    else if (chance < 0.88) this.events.apply([this.event()]);
    else if (chance < 0.98) this.mend();
    else this.upset();
  }

  /** Ends all that is live. */
  settle(): void {
    while (this.live.length > 0) this.close(this.live[0] as Sequence);
  }

  private open(): void {
    // Sometimes more than the account has room for: it is not the engine's.
    if (this.pool.freeCount < 8 && this.rng() < 0.8) this.settle();
    this.admit(pick(this.rng, this.prompts), this.rng() < 0.1 ? below(this.rng, 40) : 0);
  }

  private close(sequence: Sequence): void {
    const { prompt } = sequence;
    const answer = !prompt.exactTokens && this.rng() < 0.6 ? Buffer.from(this.words(below(this.rng, 200))) : undefined;
    const counted = prompt.exactTokens
      ? prompt.promptTokens
      : Math.max(1, Math.round(prompt.promptTokens * (0.7 + 0.6 * this.rng())));
    this.leave(sequence);
    this.pool.finish(sequence, {
      promptTokens: this.rng() < 0.8 ? counted : undefined,
      outputTokens: this.rng() < 0.8 ? below(this.rng, 60) : undefined,
      answer,
    });
    this.events.relink(sequence);
    sequence.closedMs = this.nowMs;
    this.ended.push(sequence);
    while (this.ended.length > 12) this.events.release(this.ended.shift() as Sequence);
    // A conversation goes on.
    if (answer && this.rng() < 0.5)
      this.prompts[below(this.rng, 24)] = textPrompt(
        Buffer.concat([prompt.text, answer, Buffer.from(this.words(60))]).subarray(0, 1600),
      );
  }

  private drop(sequence: Sequence): void {
    this.leave(sequence);
    if (this.rng() < 0.5) this.pool.preempt(sequence);
    else this.pool.cancel(sequence);
  }

  private event(): KvEvent {
    if (this.engineHeld.length > MAX_ENGINE_BLOCKS || (this.engineHeld.length > 0 && this.rng() < 0.3)) {
      const many = Math.max(1, this.engineHeld.length - MAX_ENGINE_BLOCKS);
      return removedBlocks(this.engineHeld.splice(below(this.rng, this.engineHeld.length - many + 1), many));
    }
    const sequences = [...this.live, ...this.ended];
    const prompt =
      sequences.length > 0 && this.rng() < 0.9 ? pick(this.rng, sequences).prompt : pick(this.rng, this.prompts);
    const ids = tokenIds(prompt.text);
    const blocks = Math.floor(ids.length / BLOCK_TOKENS);
    if (blocks === 0) return removedBlocks([12345]);
    const first = this.rng() < 0.6 ? 0 : below(this.rng, blocks);
    const end = first + 1 + below(this.rng, blocks - first);
    const hash = (at: number): number =>
      textPrompt(prompt.text.subarray(0, (at + 1) * BLOCK_TOKENS * 4), { model: 'engine' }).hashes.at(-1) as number;
    const hashes = Array.from({ length: end - first }, (_, at) => hash(first + at));
    this.engineHeld.push(...hashes);
    return storedRun(
      hashes,
      first > 0 ? hash(first - 1) : undefined,
      ids.slice(first * BLOCK_TOKENS, end * BLOCK_TOKENS),
    );
  }

  /** Better counts, as a tokenizer's answer and `cached_tokens` bring them. */
  private mend(): void {
    const nodes = this.nodesOf(pick(this.rng, this.prompts));
    if (nodes.length === 0) return;
    if (this.rng() < 0.3) this.tree.setTail(pick(this.rng, nodes), below(this.rng, 40) - 10);
    else {
      const perBlock = 10 + 12 * this.rng();
      for (const [k, node] of nodes.entries())
        if (this.rng() < 0.9) this.tree.setTokens(node, Math.floor((k + 1) * perBlock), true);
      this.events.restack(nodes);
    }
  }

  private upset(): void {
    const what = below(this.rng, 6);
    if (what === 0) this.pool.resetCached();
    else if (what === 5) this.events.fail('garbage');
    else if (what === 4) this.tree.requestReset();
    else {
      this.engineHeld.length = 0;
      if (what === 1) this.events.begin(this.rng() < 0.7);
      else if (what === 2) this.events.apply([{ type: 'cleared' }]);
      else this.events.restarted();
    }
  }

  private withLive(act: (sequence: Sequence) => void): void {
    if (this.live.length > 0) act(pick(this.rng, this.live));
  }

  private words(bytes: number): string {
    let text = '';
    while (text.length < bytes) text += `${below(this.rng, 1e6).toString(36)} `;
    return text.slice(0, bytes);
  }
}

test.each([[1], [2], [3], [4]])(
  'whatever requests and events do, both accounts stay sound and their deltas add up to what is held (seed %i)',
  (seed) => {
    const chaos = new Chaos(seed);
    const { pool, tree } = chaos;
    chaos.events.begin(true);
    let largest = 0;
    let bySource = 0;
    for (let n = 0; n < OPERATIONS; n++) {
      chaos.step();
      const referenced = Array.from({ length: COUNT - 1 }, (_, at) => at + 1).filter(
        (block) => !pool.isFree(block),
      ).length;
      expect(pool.freeCount + referenced).toBe(COUNT - 1);
      expect(pool.usedTokens).toBe(referenced * BLOCK_TOKENS);
      largest = Math.max(largest, tree.size);
      if (chaos.events.state === 'exact') bySource += 1;
      if (n % 3 > 0) continue;
      const at = `operation ${n}`;
      chaos.drain();
      expect([...chaos.mirror].toSorted(), at).toEqual(chaos.held().toSorted());
      expect(tree.blockCount, at).toBe(chaos.mirror.size);
      expect(tree.hasDelta).toBe(false);
    }
    chaos.settle();
    expect(pool.usedTokens).toBe(0);
    expect(new Set(pool.freeOrder()).size).toBe(COUNT - 1);
    // Held by either account, kept as the way to what is held, or thin.
    expect(largest).toBeLessThan(6 * COUNT);
    expect(bySource).toBeGreaterThan(OPERATIONS / 10);
    expect(bySource).toBeLessThan(OPERATIONS);
  },
);
