import type { BlocksRemoved, BlocksStored, KvEvent, KvEventSink } from '../kv-events/kv-event.ts';
import type { EngineBlock } from './engine-block.ts';
import type { PrefixNode, PrefixTree } from './prefix-tree.ts';
import { byteOfToken, nodeAt, type Sequence } from './sequence.ts';
import type { ShadowPool } from './shadow-pool.ts';
import { Alignment, locate, type TokenPlace, type Vocabulary } from './token-text.ts';

/** What the account of events rests on. `turning`: events before it were lost, and the engine may hold blocks that were never heard of. */
export type EventState = 'silent' | 'turning' | 'exact' | 'failed';

const LOST = 'KV events were lost beyond what the engine replays: its own account returns once the cache has turned over';
/** A history that began this shortly before a restart of the engine was noticed is the new engine's: the stream may be heard before its health is. */
const SAME_START_MS = 5000;
/** A run may end this far beyond what a request is believed to have: factor and tokens. */
const MAX_EXCESS = 1.25;
const MIN_EXCESS = 128;
/** Error of a prompt's length before the engine has told it. */
const LENGTH_ERROR = 0.03;
/** Blocks of a second tier that are counted one by one. */
const MAX_OFFLOADED = 2_097_152;
/** Attention of which every block of a prompt is kept (vllm/v1/kv_cache_interface.py, KVCacheSpecKind). */
const WHOLE_PROMPT_KINDS: ReadonlySet<string> = new Set(['full_attention', 'mla_attention', 'sink_full_attention', 'unknown']);

/** What the account needs of the view around it. */
export interface EngineBlocksContext {
  tree: PrefixTree;
  vocabulary: Vocabulary;
  pool(): ShadowPool;
  nowMs(): number;
  /** Says a problem of the events' content, with its fix. */
  warn(problem: string): void;
  /** sequences in order of their admission, those that have just ended included */
  sequences(): Iterable<Sequence>;
  /** called when state or problem may have changed */
  onState(): void;
}

/**
 * The blocks that an engine holds by its own events. A block's text is found through the request that brought it: it follows a block of that request, and its tokens stand
 * in the request's text. Copies are counted, since vLLM keeps several of one block and reports each one's end.
 */
export class EngineBlocks implements KvEventSink {
  state: EventState = 'silent';
  problem = '';
  private readonly context: EngineBlocksContext;
  private readonly blocks = new Map<number, EngineBlock>();
  private readonly offloaded = new Map<number, number>();
  private readonly loras = new Set<string>();
  /** groups of which every block of a prompt is kept, as stored events tell them: removals name the group alone */
  private readonly groups = new Set<number>([0]);
  private beganMs = -Infinity;
  private storedSince = 0;
  private sizeSeen = false;
  private mismatched = false;

  constructor(context: EngineBlocksContext) {
    this.context = context;
    context.tree.onForget = (node) => {
      for (const block of node.engine) if (block?.nodes.delete(node)) this.prune(block);
    };
  }

  /** Blocks of a second tier. */
  get offloadedCount(): number {
    return this.offloaded.size;
  }

  begin(complete: boolean): void {
    this.forget();
    this.beganMs = this.context.nowMs();
    this.enter(complete ? 'exact' : 'turning', complete ? '' : LOST);
    this.mismatched = false;
  }

  fail(problem: string): void {
    this.enter('failed', problem);
  }

  apply(events: readonly KvEvent[]): void {
    for (const event of events) {
      if (event.type === 'stored') this.stored(event);
      else if (event.type === 'removed') this.removed(event);
      else this.cleared();
    }
    if (this.state === 'turning' && this.storedSince >= this.context.pool().count - 1) this.enter('exact', '');
  }

  /** The engine has restarted: its stream begins anew, or has just done so. */
  restarted(): void {
    if (this.context.nowMs() - this.beganMs < SAME_START_MS) return;
    this.forget();
    if (this.state !== 'failed') this.enter('silent', '');
  }

  private forget(): void {
    for (const { nodes } of this.blocks.values()) {
      for (const node of nodes) {
        node.engine = [];
        this.say(node, 'unknown');
        this.context.tree.prune(node);
      }
    }
    this.blocks.clear();
    this.offloaded.clear();
    this.storedSince = 0;
    this.sizeSeen = false;
  }

  /** The sequence's nodes have moved or come: those from `firstNew` on get the engine blocks at their places. */
  relink(sequence: Sequence): void {
    for (let k = sequence.firstNew; k < sequence.nodes.length; k++) {
      const node = sequence.nodes[k] as PrefixNode;
      if (node.to === node.from || this.context.tree.get(node.hash) !== node) continue;
      const engine = sequence.engine.slice(node.from, node.to);
      if (engine.every((block) => block === undefined)) continue;
      this.give(node, engine);
    }
  }

  /** Better counts have come for nodes of one prompt, from its start: each gets the blocks, of both accounts, that are at its place. */
  restack(nodes: readonly PrefixNode[]): void {
    const blocks: (EngineBlock | undefined)[] = [];
    for (const { engine, from } of nodes) for (let i = 0; i < engine.length; i++) blocks[from + i] ??= engine[i];
    this.context.pool().restack(nodes);
    for (const node of nodes) if (this.context.tree.get(node.hash) === node) this.give(node, blocks.slice(node.from, node.to));
  }

  /** The sequence is over, and late events of it are too. */
  release(sequence: Sequence): void {
    for (const block of sequence.engine) if (block?.sequence === sequence) block.sequence = undefined;
  }

  private stored(event: BlocksStored): void {
    if (event.medium !== 'GPU') {
      for (const hash of event.hashes) if (this.offloaded.size < MAX_OFFLOADED) this.offloaded.set(hash, (this.offloaded.get(hash) ?? 0) + 1);
      return;
    }
    if (event.specKind !== undefined && WHOLE_PROMPT_KINDS.has(event.specKind)) this.groups.add(event.group);
    if (!this.isWhole(event)) return;
    this.storedSince += event.hashes.length;
    const parent = event.parent === undefined ? undefined : this.blocks.get(event.parent);
    const first = event.parent === undefined ? 0 : parent && parent.index >= 0 ? parent.index + 1 : -1;
    const run: EngineBlock[] = [];
    let before = parent;
    for (const hash of event.hashes) {
      const block = this.ensure(hash, before, first < 0 ? -1 : first + run.length);
      block.copies += 1;
      if (block.copies === 1) for (const node of block.nodes) this.judge(node);
      run.push(block);
      before = block;
    }
    if (first >= 0) this.attribute(run, first, parent, event);
  }

  /** Whether the event speaks of every block of a run of a prompt. A hybrid model's sliding windows and partial blocks say nothing of prefixes. */
  private isWhole(event: BlocksStored): boolean {
    if (event.specKind === undefined ? !this.groups.has(event.group) : !WHOLE_PROMPT_KINDS.has(event.specKind)) return false;
    const { blockTokens } = this.context.pool();
    if (event.blockSize !== blockTokens) {
      if (!this.sizeSeen) this.mismatch(`KV events speak of blocks of ${event.blockSize} tokens, vllm:cache_config_info of ${blockTokens}: is the events' endpoint that of this instance?`);
      return false;
    }
    this.sizeSeen = true;
    if (this.mismatched) {
      this.mismatched = false;
      // What came before, in blocks of another size, was not taken.
      this.enter('turning', LOST);
    }
    return event.tokenIds.length === event.hashes.length * event.blockSize;
  }

  private mismatch(problem: string): void {
    if (!this.mismatched) this.context.warn(problem);
    this.mismatched = true;
    this.enter('failed', problem);
  }

  private ensure(hash: number, parent: EngineBlock | undefined, index: number): EngineBlock {
    const known = this.blocks.get(hash);
    if (known) return known;
    const block: EngineBlock = { hash, parent, index, copies: 0, children: 0, nodes: new Set(), sequence: undefined };
    if (parent) parent.children += 1;
    this.blocks.set(hash, block);
    return block;
  }

  private removed({ hashes, medium, group }: BlocksRemoved): void {
    for (const hash of hashes) {
      if (medium !== 'GPU') {
        const copies = (this.offloaded.get(hash) ?? 1) - 1;
        if (copies > 0) this.offloaded.set(hash, copies);
        else this.offloaded.delete(hash);
        continue;
      }
      const block = this.groups.has(group) ? this.blocks.get(hash) : undefined;
      if (!block || block.copies === 0) continue;
      block.copies -= 1;
      if (block.copies > 0) continue;
      for (const node of block.nodes) this.judge(node);
      this.prune(block);
    }
  }

  /** All that it held is gone: its cache was reset. */
  clearAll(): void {
    for (const block of this.blocks.values()) block.copies = 0;
    for (const block of this.blocks.values()) {
      for (const node of block.nodes) this.judge(node);
      this.prune(block);
    }
  }

  /** The tree was emptied: what the blocks stand for is not known any more. */
  detach(): void {
    for (const block of this.blocks.values()) {
      block.nodes.clear();
      block.sequence = undefined;
    }
  }

  private cleared(): void {
    this.clearAll();
    this.context.pool().resetCached();
    // Whatever was not heard of is gone too.
    if (this.state === 'turning') this.enter('exact', '');
  }

  /** Forgets a block that the engine no longer holds, and those before it that only led to it. One whose text is known stays for its return: it has the same hash then. */
  private prune(block: EngineBlock): void {
    let one: EngineBlock | undefined = block;
    while (one && one.copies === 0 && one.children === 0 && one.nodes.size === 0 && this.blocks.get(one.hash) === one) {
      this.blocks.delete(one.hash);
      one = one.parent;
      if (one) one.children -= 1;
    }
  }

  /** Finds the request that brought the run, and with it the run's text. */
  private attribute(run: readonly EngineBlock[], first: number, parent: EngineBlock | undefined, event: BlocksStored): void {
    const pieces = event.tokenIds.map((id) => this.context.vocabulary.get(id));
    const owner = this.ownerOf(first, parent, event, pieces);
    if (!owner) return;
    this.assign(owner.sequence, run, first, parent);
    for (const piece of pieces) if (!piece) owner.sequence.unknownTokens += 1;
    if (owner.place) this.align(owner.sequence, first, pieces, owner.place);
  }

  /** The request whose text or tokens the event has; where too little is known to tell, the only one that it can be. */
  private ownerOf(first: number, parent: EngineBlock | undefined, event: BlocksStored, pieces: readonly (Buffer | undefined)[]): { sequence: Sequence; place: TokenPlace | undefined } | undefined {
    // Nearly always the next block of an answer.
    const last = parent?.sequence;
    if (last && last.engine[first - 1] === parent && last.engine[first] === undefined && this.isBehindPrompt(last, first)) return { sequence: last, place: undefined };
    let best: { sequence: Sequence; place: TokenPlace | undefined } | undefined;
    let possible: Sequence | undefined;
    let count = 0;
    for (const sequence of this.context.sequences()) {
      if (!this.mayFollow(sequence, first, parent, event)) continue;
      const place = this.placeOf(sequence, first, event.tokenIds, pieces);
      if (place === 'absent') continue;
      if (place === 'unknown') {
        // What leads to it must be this request's, then.
        if (parent && !this.isAt(sequence, first - 1, parent)) continue;
        possible = sequence;
        count += 1;
      } else if (!best || (place?.found ?? 1) > (best.place?.found ?? 1)) best = { sequence, place };
      if (best && (best.place?.found ?? 1) >= 1) break;
    }
    return best ?? (count === 1 && possible ? { sequence: possible, place: undefined } : undefined);
  }

  private mayFollow(sequence: Sequence, first: number, parent: EngineBlock | undefined, event: BlocksStored): boolean {
    const { prompt, engine } = sequence;
    if (engine[first] !== undefined || (first + event.hashes.length) * event.blockSize > MAX_EXCESS * sequence.tokens + MIN_EXCESS) return false;
    if (event.loraName !== undefined) this.loras.add(event.loraName);
    if (event.loraName === undefined ? this.loras.has(prompt.model) : prompt.model !== event.loraName) return false;
    if (!parent) return event.extraKeys === undefined || this.hasSalt(event.extraKeys[0] ?? [], prompt.cacheSalt);
    // The block before it may end in a prefix block that this prompt does not share: the tokens decide.
    return engine[first - 1] === undefined || engine[first - 1] === parent;
  }

  /** Whether the keys of a prompt's first block are those of the salt. Those of images are strings too in some versions: without a salt, no other request's is among them. */
  private hasSalt(keys: readonly unknown[], salt: string): boolean {
    if (salt !== '') return keys.includes(salt);
    if (keys.length > 0) for (const { prompt } of this.context.sequences()) if (prompt.cacheSalt !== '' && keys.includes(prompt.cacheSalt)) return false;
    return true;
  }

  /** Whether the block is the request's own at that place, as far as is known. */
  private isAt({ engine, nodes }: Sequence, index: number, block: EngineBlock): boolean {
    if (engine[index] !== undefined) return engine[index] === block;
    const node = nodeAt(nodes, index);
    return node !== undefined && block.nodes.has(node);
  }

  /** Whether the block at that place is of the answer, as far as the prompt's length is known. */
  private isBehindPrompt({ promptTokens, prompt }: Sequence, first: number): boolean {
    const { blockTokens } = this.context.pool();
    return first * blockTokens >= (prompt.exactTokens ? promptTokens : promptTokens * (1 - LENGTH_ERROR) - blockTokens);
  }

  /** Where the event's tokens stand in the prompt of a request; undefined: they are its very tokens. */
  private placeOf(sequence: Sequence, first: number, ids: readonly number[], pieces: readonly (Buffer | undefined)[]): TokenPlace | undefined | 'absent' | 'unknown' {
    const { prompt } = sequence;
    const { blockTokens } = this.context.pool();
    const token = first * blockTokens;
    if (token >= sequence.promptTokens) return 'unknown';
    if (!prompt.exactTokens) {
      const place = locate(pieces, prompt.text, byteOfToken(sequence, token), first === 0);
      return place === 'absent' && this.isBehindPrompt(sequence, first) ? 'unknown' : place;
    }
    const known = Math.min(ids.length, Math.floor(prompt.text.length / 4) - token);
    for (let i = 0; i < known; i++) if (prompt.text.readUInt32LE((token + i) * 4) !== ids[i]) return 'absent';
    return undefined;
  }

  private assign(sequence: Sequence, run: readonly EngineBlock[], first: number, parent: EngineBlock | undefined): void {
    const { engine } = sequence;
    sequence.heard = true;
    for (let i = 0; i < run.length; i++) this.link(sequence, first + i, run[i] as EngineBlock);
    // What it found cached, as far as that is not yet known to be its text.
    for (let at = first - 1, block = parent; block && at >= 0 && engine[at] === undefined; at--, block = block.parent) this.link(sequence, at, block);
  }

  private link(sequence: Sequence, index: number, block: EngineBlock): void {
    sequence.engine[index] = block;
    block.sequence = sequence;
    const node = nodeAt(sequence.nodes, index);
    if (!node || this.context.tree.get(node.hash) !== node) return;
    if (node.engine[index - node.from] === block) return;
    node.engine[index - node.from]?.nodes.delete(node);
    node.engine[index - node.from] = block;
    block.nodes.add(node);
    this.judge(node);
  }

  private give(node: PrefixNode, engine: (EngineBlock | undefined)[]): void {
    for (const block of node.engine) block?.nodes.delete(node);
    node.engine = engine;
    for (const block of engine) block?.nodes.add(node);
    this.judge(node);
  }

  /** Follows the run's tokens through the prompt's text: where byte blocks end becomes exact. */
  private align(sequence: Sequence, first: number, pieces: readonly (Buffer | undefined)[], place: TokenPlace): void {
    const { tree } = this.context;
    const pool = this.context.pool();
    const { nodes, prompt, firstNew } = sequence;
    const token = first * pool.blockTokens;
    let fed = pieces;
    if (sequence.alignment?.tokens !== token) {
      sequence.alignment = new Alignment(prompt.text, place.byte, token + place.piece);
      fed = pieces.slice(place.piece);
    }
    let moved = false;
    sequence.alignment.feed(fed, (k, tokens) => {
      const node = nodes[k];
      if (!node || node.exact || k >= prompt.hashes.length) return;
      tree.setTokens(node, tokens, true);
      moved ||= k >= firstNew;
    });
    if (moved) pool.relayout(sequence);
    if (this.isUneven(nodes)) this.restack(nodes.filter((node) => tree.get(node.hash) === node));
    this.relink(sequence);
  }

  /** Nodes that others have laid out by estimates do not meet. */
  private isUneven(nodes: readonly PrefixNode[]): boolean {
    for (let k = 1; k < nodes.length; k++) if ((nodes[k] as PrefixNode).from !== (nodes[k - 1] as PrefixNode).to) return true;
    return false;
  }

  /** What the engine's blocks say of a node. */
  private judge(node: PrefixNode): void {
    let known = node.to > node.from;
    let held = true;
    for (let i = 0; i < node.to - node.from; i++) {
      const block = node.engine[i];
      if (!block) known = false;
      else if (block.copies === 0) held = false;
    }
    this.say(node, !held ? 'gone' : known ? 'held' : 'unknown');
    // Of several blocks, each may be the last.
    if (!held) this.context.tree.prune(node);
  }

  private say(node: PrefixNode, events: PrefixNode['events']): void {
    if (node.events === events) return;
    node.events = events;
    this.context.tree.settle(node);
    this.context.tree.prune(node);
  }

  private enter(state: EventState, problem: string): void {
    this.state = state;
    this.problem = problem;
    this.context.onState();
  }
}
