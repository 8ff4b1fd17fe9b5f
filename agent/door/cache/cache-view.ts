import { engineHitTokens } from '../../../shared/blocks/hit-tokens.ts';
import type { Clock } from '../../../shared/env.ts';
import type { CacheFigures, CacheSource } from '../../../shared/instance.ts';
import { BLOCK_BYTES } from '../../request/fingerprint.ts';
import type { CachePrompt } from '../../request/prompt.ts';
import { EngineBlocks } from './engine-blocks.ts';
import { type BlockDelta, type PrefixNode, PrefixTree } from './prefix-tree.ts';
import type { Layout, Sequence, SequenceEnd } from './sequence.ts';
import { sharedTokens, ShadowPool } from './shadow-pool.ts';
import type { ProbeSource, TokenizedPrompt, TokenProbe } from './token-probe.ts';
import { Alignment, Vocabulary } from './token-text.ts';
import { WordTokens } from './word-tokens.ts';

/** What the view says of a prompt that is about to go to the engine. */
export interface CacheLook extends Layout {
  /** tokens of its longest cached prefix, as the engine will count them: whole blocks, never all of the prompt */
  hitTokens: number;
  /** last block of that prefix, where the prompt parts from what is known; undefined: the prefix ends because the engine let go of the rest */
  hit: PrefixNode | undefined;
}

/** A request at its end, as far as the view learns from it. */
export interface CacheOutcome extends SequenceEnd {
  /** tokens that the engine found cached; undefined: it does not tell */
  cachedTokens: number | undefined;
  /** the request as it went to the engine, to ask for its exact tokens; undefined: not to be asked */
  source: ProbeSource | undefined;
}

/** Events of a request may come after its end. */
const LATE_EVENTS_MS = 2000;
const MAX_ENDED = 256;
/** Blocks of the largest cache that is accounted for: 64 million tokens. */
const MAX_BLOCKS = 4_194_304;
/** No tokenizer makes more tokens of a text than this a byte, its template's aside, nor fewer than one of so many bytes. */
const TEMPLATE_TOKENS = 65_536;
const MAX_BYTES_PER_TOKEN = 64;
const RATE = 0.02;
const TAIL_RATE = 0.02;
const ANSWER_RATE = 0.1;
/** Share of answers that next turns find cached, from which on they are believed to be. */
const MIN_ANSWERS_KEPT = 0.8;
/** Believed or not, one answer in so many is, to see whether they are again. */
const ANSWER_SAMPLED = 16;
/** One request in so many is asked for its exact tokens even if all was right. */
const SAMPLED = 64;
/** Share of the tokens of an event whose text may be unknown before the prompt is asked for. */
const MAX_UNKNOWN_SHARE = 0.05;
/** Share of a prompt's tokens that must be found in its text for its counts to be believed. */
const MIN_FOUND_SHARE = 0.8;

/**
 * What a door knows of its engine's prefix cache: its own account of the engine's block pool, the engine's events where they are read, and how the text of prompts lies in
 * the engine's blocks. Tells what a prompt will find cached, and publishes what is held as deltas of prefix blocks.
 */
export class CacheView {
  readonly events: EngineBlocks;
  private readonly clock: Clock;
  private readonly tree = new PrefixTree();
  private readonly vocabulary = new Vocabulary();
  private readonly words = new WordTokens();
  private readonly probe: TokenProbe | undefined;
  private pool: ShadowPool;
  private eventsLive = true;
  private sizeKnown = false;
  private enabled = true;
  /** in order of admission */
  private readonly live = new Set<Sequence>();
  private readonly ended: Sequence[] = [];
  private finished = 0;
  /** share of answers that next turns found cached: an answer may be spelled in other tokens when it comes back as a prompt */
  private answersKept = 1;
  private checked = 0;
  private accuracy = 0;
  private hitSum = 0;
  private promptSum = 0;

  /** `probe`: how to ask the engine for exact tokens; undefined: never asked. `warn` hears of events that cannot be right, once each time. */
  constructor(clock: Clock, kvTokens: number, blockTokens: number, probe: TokenProbe | undefined, warn: (problem: string) => void = () => undefined) {
    this.clock = clock;
    this.probe = probe;
    this.pool = this.makePool(kvTokens, blockTokens);
    this.events = new EngineBlocks({
      tree: this.tree,
      vocabulary: this.vocabulary,
      pool: () => this.pool,
      nowMs: () => clock.nowMs(),
      warn,
      sequences: () => this.sequences(),
      onState: () => this.chooseSource(),
    });
  }

  /** Tokens of blocks that live requests reference, shared blocks once. */
  get usedTokens(): number {
    return this.pool.usedTokens;
  }

  /** Prefix blocks that the view holds. */
  get blockCount(): number {
    return this.enabled ? this.tree.blockCount : 0;
  }

  /** Whether events arrive: while their link is down, what is evicted meanwhile is known to the door's own account only. */
  setEventsLive(live: boolean): void {
    if (live === this.eventsLive) return;
    this.eventsLive = live;
    this.chooseSource();
  }

  /** The engine has told its cache's size. Another size is another cache: what was known is forgotten. */
  setSize(kvTokens: number, blockTokens: number): void {
    // No engine has such a cache: what it says is not believed, and what was known stays.
    if (!(blockTokens >= 1 && kvTokens >= blockTokens && kvTokens / blockTokens <= MAX_BLOCKS)) return;
    this.sizeKnown = true;
    if (this.pool.blockTokens === blockTokens && this.pool.count === blocksOf(kvTokens, blockTokens)) return;
    this.forget();
    // What the engine holds by its events it holds whatever was assumed of its size.
    this.events.detach();
    this.pool = this.makePool(kvTokens, blockTokens);
  }

  /** False: the engine runs without prefix caching, so nothing is ever found. */
  setCaching(enabled: boolean): void {
    if (enabled === this.enabled) return;
    this.enabled = enabled;
    this.tree.requestReset();
  }

  /** What the engine would find of the prompt, were it admitted after all that was sent before it. */
  look(prompt: CachePrompt): CacheLook {
    const { hashes } = prompt;
    const ends = new Float64Array(hashes.length + 1);
    let cached = this.enabled;
    let hit: PrefixNode | undefined;
    let evicted: PrefixNode | undefined;
    // Events come a step late: what requests ahead of this one are about to take, only the door's own account knows.
    const unheard = this.byEvents && this.hasUnheard();
    let depth = 0;
    while (depth < hashes.length) {
      const node = this.tree.get(hashes[depth] as number);
      if (!node) break;
      ends[depth] = node.tokens;
      depth += 1;
      if (cached && !(this.tree.isHeld(node) && (!unheard || node.shadowHeld || node.to === node.from))) evicted = node;
      cached &&= !evicted;
      if (cached) hit = node;
    }
    const { blockTokens } = this.pool;
    const promptTokens = this.layOut(prompt, ends, depth);
    // Where the engine has let go of the next block, no more of it is left than the view holds.
    const left = evicted && ((hit?.to ?? 0) + (unheard ? Math.min(this.tree.leftOf(evicted), evicted.blocks.length) : this.tree.leftOf(evicted))) * blockTokens;
    const matched = left ?? Math.max(hit?.tokens ?? 0, this.partOf(prompt, depth, hit) ?? (hit ? this.tree.hitTokens(hit) : 0));
    return { promptTokens, ends, hit: evicted ? undefined : hit, hitTokens: engineHitTokens(matched, promptTokens, blockTokens) };
  }

  /** Tokens by which `usedTokens` would grow if the prompt were admitted. */
  claimTokens(prompt: CachePrompt, promptTokens: number): number {
    return this.pool.claimTokens(prompt, promptTokens);
  }

  /** The engine admits a prompt; `generated`: tokens of its answer from before it was preempted. */
  admit(prompt: CachePrompt, layout: Layout, generated: number): Sequence {
    const sequence = this.pool.admit(prompt, layout, generated);
    this.live.add(sequence);
    return sequence;
  }

  /** `tokens` more were generated. False: the engine has no block for them and preempts somebody. */
  grow(sequence: Sequence, tokens: number): boolean {
    return this.live.has(sequence) ? this.pool.grow(sequence, tokens) : true;
  }

  preempt(sequence: Sequence): void {
    if (this.live.delete(sequence)) this.pool.preempt(sequence);
  }

  /** The engine never computed it. */
  cancel(sequence: Sequence): void {
    if (this.live.delete(sequence)) this.pool.cancel(sequence);
  }

  /** The request is over; `predicted`: what the view said of it at its dispatch. */
  finish(sequence: Sequence, told: CacheOutcome, predicted: CacheLook): void {
    if (!this.live.has(sequence)) return;
    // The engine has seen another text than the client's (`truncate_prompt_tokens`), or counts what is none.
    if (told.promptTokens !== undefined && told.promptTokens * MAX_BYTES_PER_TOKEN < sequence.prompt.text.length) return this.cancel(sequence);
    this.live.delete(sequence);
    const outcome = this.plausible(sequence, told);
    const believed = this.answersKept >= MIN_ANSWERS_KEPT || this.finished % ANSWER_SAMPLED === 0;
    this.pool.finish(sequence, believed ? outcome : { ...outcome, answer: undefined });
    this.events.relink(sequence);
    sequence.closedMs = this.clock.nowMs();
    this.ended.push(sequence);
    this.dropEnded();
    const wrong = this.check(sequence, outcome, predicted);
    this.finished += 1;
    if (outcome.source && !sequence.prompt.exactTokens && this.probe?.isReady && (wrong || this.isDue(sequence))) {
      void this.probe.ask(outcome.source).then((tokens) => tokens && this.learn(sequence.prompt, tokens));
    }
  }

  /** The engine's cache was emptied on purpose. */
  resetCached(): void {
    this.pool.resetCached();
    // The engine's own word comes with its next step.
    this.events.clearAll();
  }

  /** The engine restarted: nothing of what was known holds. */
  clear(): void {
    this.events.restarted();
    this.forget();
    this.events.detach();
    this.pool = this.makePool((this.pool.count - 1) * this.pool.blockTokens, this.pool.blockTokens);
    this.probe?.reset();
    this.checked = 0;
    this.accuracy = 0;
    this.hitSum = 0;
    this.promptSum = 0;
  }

  figures(): CacheFigures {
    const source: CacheSource = this.byEvents ? 'events' : this.sizeKnown ? 'shadow' : 'estimate';
    return {
      source,
      problem: this.problem(source),
      blocks: this.blockCount,
      offloadedBlocks: this.events.offloadedCount,
      hitRatio: this.promptSum > 0 ? this.hitSum / this.promptSum : 0,
      accuracyRatio: this.accuracy,
      checked: this.checked,
    };
  }

  get hasDelta(): boolean {
    return this.tree.hasDelta;
  }

  drainDelta(): BlockDelta {
    const delta = this.tree.drainDelta();
    return this.enabled ? delta : { reset: delta.reset, add: [], tokens: [], remove: [] };
  }

  /** The next delta is the whole view. */
  requestReset(): void {
    this.tree.requestReset();
  }

  private problem(source: CacheSource): string {
    if (!this.enabled) return 'the engine runs without prefix caching (--no-enable-prefix-caching)';
    if (this.events.problem !== '') return this.events.problem;
    if (source === 'estimate') return "the size of the KV cache is not known: vllm:cache_config_info is missing in the engine's metrics; set the instance's kvTokens";
    return this.probe?.problem ?? '';
  }

  private get byEvents(): boolean {
    return this.eventsLive && this.events.state === 'exact';
  }

  private *sequences(): Generator<Sequence> {
    this.dropEnded();
    yield* this.live;
    yield* this.ended;
  }

  private dropEnded(): void {
    const sinceMs = this.clock.nowMs() - LATE_EVENTS_MS;
    while (this.ended.length > MAX_ENDED || ((this.ended[0]?.closedMs as number | undefined) ?? Infinity) < sinceMs) {
      this.events.release(this.ended.shift() as Sequence);
    }
  }

  private hasUnheard(): boolean {
    for (const { heard, tokens, promptTokens } of this.live) if (!heard && tokens <= promptTokens) return true;
    return false;
  }

  /** Tokens up to where the prompt parts, inside its byte block `depth`, from what was seen there lately; undefined: nothing like it was. */
  private partOf(prompt: CachePrompt, depth: number, hit: PrefixNode | undefined): number | undefined {
    if (!this.enabled || prompt.exactTokens) return undefined;
    const shared = this.tree.sharing(hit, prompt.text.toString('latin1', depth * BLOCK_BYTES, (depth + 1) * BLOCK_BYTES));
    if (!shared) return undefined;
    const { blockTokens } = this.pool;
    return Math.min(sharedTokens(shared), (shared.node.from + this.tree.leftOf(shared.node)) * blockTokens);
  }

  /** Expected tokens of the blocks behind the first `depth`, whose own are in `ends`; returns those of the whole prompt. */
  private layOut(prompt: CachePrompt, ends: Float64Array, depth: number): number {
    const { tokensPerBlock } = prompt;
    const blocks = ends.length - 1;
    if (prompt.exactTokens) {
      for (let k = depth; k < blocks; k++) ends[k] = (k + 1) * tokensPerBlock;
      ends[blocks] = prompt.promptTokens;
      return prompt.promptTokens;
    }
    const before = depth > 0 ? (ends[depth - 1] as number) : 0;
    const rest = this.words.estimate(prompt.text, depth * BLOCK_BYTES, BLOCK_BYTES, tokensPerBlock / BLOCK_BYTES);
    for (let k = depth; k <= blocks; k++) ends[k] = before + (rest[k - depth] as number);
    return Math.max(1, Math.round(ends[blocks] as number));
  }

  /** What an engine can have told: counts that no cache of its size holds are left out, and an answer that its count of tokens cannot spell. */
  private plausible({ prompt, tokens }: Sequence, told: CacheOutcome): CacheOutcome {
    const most = this.pool.count * this.pool.blockTokens;
    const { promptTokens, outputTokens, cachedTokens, answer, source } = told;
    const isPossible = (promptTokens ?? 0) <= Math.min(most, prompt.text.length + TEMPLATE_TOKENS) && (outputTokens ?? 0) <= most && (cachedTokens ?? 0) <= (promptTokens ?? most);
    if (!isPossible) return { promptTokens: undefined, outputTokens: undefined, cachedTokens: undefined, answer: undefined, source };
    return { ...told, answer: answer && answer.length <= MAX_BYTES_PER_TOKEN * Math.max(outputTokens ?? 0, tokens - prompt.promptTokens) ? answer : undefined };
  }

  /** Compares what was predicted with what the engine found. True: it was wrong where it can be mended by knowing the prompt's tokens. */
  private check(sequence: Sequence, { cachedTokens, promptTokens }: CacheOutcome, { hit, hitTokens }: CacheLook): boolean {
    if (cachedTokens === undefined) return false;
    const { blockTokens } = this.pool;
    const isRight = Math.abs(cachedTokens - hitTokens) <= blockTokens;
    this.checked += 1;
    const rate = Math.max(RATE, 1 / this.checked);
    this.accuracy += rate * ((isRight ? 1 : 0) - this.accuracy);
    this.hitSum += rate * (cachedTokens - this.hitSum);
    this.promptSum += rate * ((promptTokens ?? sequence.promptTokens) - this.promptSum);
    if (hit && hit.tokens - hit.promptTokens > 2 * blockTokens) {
      const kept = (cachedTokens + blockTokens - hit.promptTokens) / (hit.tokens - hit.promptTokens);
      this.answersKept += ANSWER_RATE * (Math.min(1, Math.max(0, kept)) - this.answersKept);
    }
    if (hit && !sequence.prompt.exactTokens) this.learnTail(hit, cachedTokens, sequence.prompt.tokensPerBlock);
    return !isRight && sequence.nodes.some((node) => !node.exact);
  }

  /**
   * Prompts part inside a block, so the engine finds a little more than the last whole one. What it found behind this block the last time, it will find again: prompts
   * that share a beginning mostly part at the same place.
   */
  private learnTail(hit: PrefixNode, cachedTokens: number, tokensPerBlock: number): void {
    const { blockTokens } = this.pool;
    // The engine counts whole blocks: the middle of the next one is what the count stands for.
    const tail = cachedTokens + blockTokens / 2 - hit.tokens;
    // Farther off, it is not the place that was wrong but what is cached.
    if (tail < -2 * blockTokens || tail > Math.max(tokensPerBlock, BLOCK_BYTES) + blockTokens) return;
    this.tree.setTail(hit, tail);
    this.tree.defaultTail += TAIL_RATE * (Math.max(0, tail) - this.tree.defaultTail);
  }

  /** Now and then, and while events speak of tokens whose text is not known. */
  private isDue(sequence: Sequence): boolean {
    return this.finished % SAMPLED === 0 || sequence.unknownTokens > MAX_UNKNOWN_SHARE * sequence.promptTokens;
  }

  /** The engine's own tokens of a prompt: their text, and where the prompt's byte blocks end among them. */
  private learn(prompt: CachePrompt, { ids, spellings }: TokenizedPrompt): void {
    for (let i = 0; i < ids.length; i++) this.vocabulary.learn(ids[i] as number, spellings[i] as string);
    const alignment = new Alignment(prompt.text);
    const ends = new Map<number, number>();
    alignment.feed(ids.map((id) => this.vocabulary.get(id)), (block, tokens) => ends.set(block, tokens));
    if (alignment.found < MIN_FOUND_SHARE * ids.length) return;
    this.words.learn(prompt.text, alignment.tokensAt());
    const nodes: PrefixNode[] = [];
    for (let k = 0; k < prompt.hashes.length; k++) {
      const node = this.tree.get(prompt.hashes[k] as number);
      if (!node) break;
      const tokens = ends.get(k);
      if (tokens !== undefined) this.tree.setTokens(node, tokens, true);
      nodes.push(node);
    }
    this.events.restack(nodes);
  }

  private chooseSource(): void {
    this.tree.setSource(this.byEvents);
  }

  private forget(): void {
    this.live.clear();
    for (const sequence of this.ended) this.events.release(sequence);
    this.ended.length = 0;
    this.tree.clear();
  }

  private makePool(kvTokens: number, blockTokens: number): ShadowPool {
    return new ShadowPool(this.tree, blocksOf(kvTokens, blockTokens), blockTokens);
  }
}

/** Physical blocks: those that requests can use, and the null block. */
function blocksOf(kvTokens: number, blockTokens: number): number {
  return Math.min(MAX_BLOCKS, Math.max(1, Math.floor(kvTokens / blockTokens))) + 1;
}
