import { engineHitTokens } from '../../../shared/blocks/hit-tokens.ts';
import type { Clock } from '../../../shared/env.ts';
import { errorMessage } from '../../../shared/errors.ts';
import type { CacheFigures, CacheSource } from '../../../shared/instance.ts';
import { BLOCK_BYTES } from '../../request/fingerprint.ts';
import type { CachePrompt } from '../../request/prompt.ts';
import { type AlignedPrompt, askAligned } from './align-prompt.ts';
import { EngineBlocks } from './engine-blocks.ts';
import { HitCheck, isTruncated, plausible } from './hit-check.ts';
import { sharedTokens } from './node-layout.ts';
import { PrefixTree } from './prefix-tree.ts';
import type { CacheLook, CacheOutcome, Layout, PrefixNode, Sequence } from './records.ts';
import { ShadowPool } from './shadow-pool.ts';
import type { ProbeSource, TokenProbe } from './token-probe.ts';
import { Vocabulary } from './token-text.ts';
import type { BlockDelta } from './view-delta.ts';
import { WordTokens } from './word-tokens.ts';

/** Events of a request may come this long after its end. */
const LATE_EVENTS_MS = 2000;
const MAX_ENDED = 256;
/** Blocks of the largest cache that the account follows: 64 million tokens. */
const MAX_BLOCKS = 4_194_304;
/** The exact tokens of one prompt in this many are asked for even if its prediction was right. */
const SAMPLED = 64;
/** Share of a prompt's tokens whose text its events may leave unknown before its exact tokens are asked for. */
const MAX_UNKNOWN_SHARE = 0.05;

/**
 * What a door knows of its engine's prefix cache: its own account of the engine's block pool, the engine's events where
 * they are read, and how the text of prompts lies in the engine's blocks. Predicts how much of a prompt is found
 * cached, and publishes the held prefix blocks as deltas.
 */
export class CacheView {
  readonly events: EngineBlocks;
  private readonly clock: Clock;
  private readonly tree = new PrefixTree();
  private readonly hits = new HitCheck(this.tree);
  private readonly vocabulary = new Vocabulary();
  private readonly words = new WordTokens();
  private readonly probe: TokenProbe | undefined;
  private readonly warn: (problem: string) => void;
  private pool: ShadowPool;
  private eventsLive = true;
  private sizeKnown = false;
  private enabled = true;
  /** in order of admission */
  private readonly live = new Set<Sequence>();
  private readonly ended: Sequence[] = [];
  private finished = 0;
  /** engines that this view has seen */
  private engines = 0;

  /**
   * `probe`: how to ask the engine for exact tokens; undefined: never asked. `warn` gets each problem of events that
   * cannot be right, once each time.
   */
  constructor(
    clock: Clock,
    kvTokens: number,
    blockTokens: number,
    probe: TokenProbe | undefined,
    warn: (problem: string) => void = () => undefined,
  ) {
    this.clock = clock;
    this.probe = probe;
    this.warn = warn;
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

  /** Whether events arrive: while their link is down, only the door's own account follows evictions. */
  setEventsLive(live: boolean): void {
    if (live === this.eventsLive) return;
    this.eventsLive = live;
    this.chooseSource();
  }

  /** The engine has reported its cache's size. Another size is another cache: the view forgets what it knew. */
  setSize(kvTokens: number, blockTokens: number): void {
    // No engine has a cache of this size: the report is ignored, and the view stays as it is.
    if (!(blockTokens >= 1 && kvTokens >= blockTokens && kvTokens / blockTokens <= MAX_BLOCKS)) return;
    this.sizeKnown = true;
    if (this.pool.blockTokens === blockTokens && this.pool.count === blocksOf(kvTokens, blockTokens)) return;
    this.forget();
    // The blocks that events have reported stay, whatever size was assumed.
    this.events.detach();
    this.pool = this.makePool(kvTokens, blockTokens);
  }

  /** False: the engine runs without prefix caching, so nothing is ever found. */
  setCaching(enabled: boolean): void {
    if (enabled === this.enabled) return;
    this.enabled = enabled;
    this.tree.requestReset();
  }

  /** What the engine would find cached if the prompt were admitted after all that was sent before it. */
  look(prompt: CachePrompt): CacheLook {
    const { hashes } = prompt;
    const ends = new Float64Array(hashes.length + 1);
    const nodes: PrefixNode[] = [];
    let cached = this.enabled;
    let hit: PrefixNode | undefined;
    let evicted: PrefixNode | undefined;
    // Events come a step late: only the door's own account knows what requests ahead of this one are about to take.
    const unheard = this.byEvents && this.hasUnheard();
    let depth = 0;
    while (depth < hashes.length) {
      const node = this.tree.get(hashes[depth] as number);
      if (!node) break;
      nodes.push(node);
      ends[depth] = node.tokens;
      depth += 1;
      const isThere = this.tree.isHeld(node) && (!unheard || node.shadow.held || node.to === node.from);
      if (cached && !isThere) evicted = node;
      cached &&= !evicted;
      if (cached) hit = node;
    }
    const promptTokens = this.layOut(prompt, ends, depth);
    const matched = evicted
      ? this.tokensLeft(hit, evicted, unheard)
      : Math.max(hit?.tokens ?? 0, this.partOf(prompt, depth, hit) ?? (hit ? this.tree.hitTokens(hit) : 0));
    const hitTokens = engineHitTokens(matched, promptTokens, this.pool.blockTokens);
    return { promptTokens, ends, nodes, hit: evicted ? undefined : hit, hitTokens };
  }

  /** Tokens by which `usedTokens` would grow if the prompt were admitted with `tokens` tokens. */
  claimTokens(prompt: CachePrompt, layout: Layout, tokens: number): number {
    return this.pool.claimTokens(prompt, layout, tokens);
  }

  /** The engine admits a prompt; `generated`: tokens of its answer from before it was preempted. */
  admit(prompt: CachePrompt, layout: Layout, generated: number): Sequence {
    const sequence = this.pool.admit(prompt, layout, generated);
    this.live.add(sequence);
    return sequence;
  }

  /** `tokens` more were generated. False: the engine has no block for them and preempts a request. */
  grow(sequence: Sequence, tokens: number): boolean {
    return this.live.has(sequence) ? this.pool.grow(sequence, tokens) : true;
  }

  preempt(sequence: Sequence): void {
    if (this.live.delete(sequence)) this.pool.preempt(sequence);
  }

  /** The engine never computed the request. */
  cancel(sequence: Sequence): void {
    if (this.live.delete(sequence)) this.pool.cancel(sequence);
  }

  /** The request is over; `predicted`: the prediction at its dispatch. */
  finish(sequence: Sequence, told: CacheOutcome, predicted: CacheLook): void {
    if (!this.live.has(sequence)) return;
    if (isTruncated(sequence, told)) return this.cancel(sequence);
    this.live.delete(sequence);
    const outcome = plausible(sequence, told, this.pool.count * this.pool.blockTokens);
    this.pool.finish(sequence, this.hits.believesAnswer(this.finished) ? outcome : { ...outcome, answer: undefined });
    this.events.relink(sequence);
    sequence.closedMs = this.clock.nowMs();
    this.ended.push(sequence);
    this.dropEnded();
    const isWrong = this.hits.compare(sequence, outcome, predicted, this.pool.blockTokens);
    this.finished += 1;
    if (outcome.source && !sequence.prompt.exactTokens && this.probe?.isReady && (isWrong || this.isDue(sequence))) {
      this.askTokens(this.probe, outcome.source, sequence.prompt);
    }
  }

  /** The engine's cache was emptied on purpose. */
  resetCached(): void {
    this.pool.resetCached();
    // The engine's own event comes with its next step.
    this.events.clearAll();
  }

  /** The engine restarted, perhaps with another model: nothing of what was known holds. */
  clear(): void {
    this.events.restarted();
    this.forget();
    this.events.detach();
    this.pool = this.makePool((this.pool.count - 1) * this.pool.blockTokens, this.pool.blockTokens);
    this.probe?.reset();
    this.engines += 1;
    this.vocabulary.clear();
    this.hits.reset();
  }

  figures(): CacheFigures {
    const source: CacheSource = this.byEvents ? 'events' : this.sizeKnown ? 'shadow' : 'estimate';
    return {
      source,
      problem: this.problem(source),
      blocks: this.blockCount,
      offloadedBlocks: this.events.offloadedCount,
      ...this.hits.figures(),
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
    if (source === 'estimate') {
      return "the size of the KV cache is not known: vllm:cache_config_info is missing in the engine's metrics; set the instance's kvTokens";
    }
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

  /** Events have not named the blocks of a prompt that is being computed. */
  private hasUnheard(): boolean {
    for (const { heard, tokens, promptTokens } of this.live) if (!heard && tokens <= promptTokens) return true;
    return false;
  }

  /**
   * Tokens that are left where the engine has evicted the node behind `hit`. `unheard`: some evictions are not reported
   * yet.
   */
  private tokensLeft(hit: PrefixNode | undefined, evicted: PrefixNode, unheard: boolean): number {
    const left = this.tree.leftOf(evicted);
    return ((hit?.to ?? 0) + (unheard ? Math.min(left, evicted.shadow.blocks.length) : left)) * this.pool.blockTokens;
  }

  /**
   * Tokens up to where the prompt parts, inside its byte block `depth`, from the recent continuations there; undefined:
   * none begins like it.
   */
  private partOf(prompt: CachePrompt, depth: number, hit: PrefixNode | undefined): number | undefined {
    if (!this.enabled || prompt.exactTokens) return undefined;
    const next = prompt.text.toString('latin1', depth * BLOCK_BYTES, (depth + 1) * BLOCK_BYTES);
    const shared = this.tree.sharing(hit, next);
    if (!shared) return undefined;
    const { blockTokens } = this.pool;
    return Math.min(sharedTokens(shared), (shared.node.from + this.tree.leftOf(shared.node)) * blockTokens);
  }

  /** Fills `ends` with expected tokens from block `depth` on; returns the tokens of the whole prompt. */
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

  /**
   * Whether exact tokens are asked for though the prediction was right: now and then, and while events have unknown
   * tokens.
   */
  private isDue(sequence: Sequence): boolean {
    return this.finished % SAMPLED === 0 || sequence.unknownTokens > MAX_UNKNOWN_SHARE * sequence.promptTokens;
  }

  private askTokens(probe: TokenProbe, source: ProbeSource, prompt: CachePrompt): void {
    const { engines } = this;
    askAligned(probe, source, this.vocabulary, prompt.text, () => engines !== this.engines)
      .then((aligned) => aligned && this.learn(prompt, aligned))
      .catch((error: unknown) =>
        this.warn(`exact tokens of a prompt could not be learned from: ${errorMessage(error)}`),
      );
  }

  private learn(prompt: CachePrompt, { tokensAt, ends }: AlignedPrompt): void {
    this.words.learn(prompt.text, tokensAt);
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
