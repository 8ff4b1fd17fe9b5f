import type { BlocksRemoved, BlocksStored, KvEvent, KvEventSink } from '../kv-events/kv-event.ts';
import { BlockOwner } from './block-owner.ts';
import type { PrefixTree } from './prefix-tree.ts';
import type { EngineBlock, EngineMark, PrefixNode, Sequence } from './records.ts';
import { nodeAt } from './sequence.ts';
import type { ShadowPool } from './shadow-pool.ts';
import { Alignment, type TokenPlace, type Vocabulary } from './token-text.ts';

/**
 * What the account of events rests on. `turning`: events were lost, so the engine may hold blocks that none has named.
 */
export type EventState = 'silent' | 'turning' | 'exact' | 'failed';

const LOST =
  'KV events were lost beyond what the engine replays: its own account returns once the cache has turned over';
/**
 * A history that began at most this long before a restart of the engine was noticed is the new engine's: its first
 * events may arrive before its first health check.
 */
const SAME_START_MS = 5000;
/** Blocks of a second tier that are counted, at most. */
const MAX_OFFLOADED = 2_097_152;
/** Kinds of attention that keep every block of a prompt (vllm/v1/kv_cache_interface.py, KVCacheSpecKind). */
const WHOLE_PROMPT_KINDS: ReadonlySet<string> = new Set([
  'full_attention',
  'mla_attention',
  'sink_full_attention',
  'unknown',
]);

/** What the account needs of the view around it. */
export interface EngineBlocksContext {
  tree: PrefixTree;
  vocabulary: Vocabulary;
  pool(): ShadowPool;
  nowMs(): number;
  /** Logs a problem of the events' content, with its fix. */
  warn(problem: string): void;
  /** sequences in order of their admission, those that have just ended included */
  sequences(): Iterable<Sequence>;
  /** called when state or problem may have changed */
  onState(): void;
}

/**
 * The blocks that an engine holds by its own events. A block's text is found through the request that brought it
 * (block-owner.ts). Copies are counted, since vLLM keeps several of one block and reports the eviction of each.
 */
export class EngineBlocks implements KvEventSink {
  state: EventState = 'silent';
  problem = '';
  private readonly context: EngineBlocksContext;
  private readonly blocks = new Map<number, EngineBlock>();
  private readonly offloaded = new Map<number, number>();
  private readonly owner: BlockOwner;
  /** groups that keep every block of a prompt, by their stored events: removals name the group alone */
  private readonly groups = new Set<number>([0]);
  private beganMs = -Infinity;
  private storedSince = 0;
  private sizeSeen = false;
  private mismatched = false;

  constructor(context: EngineBlocksContext) {
    this.context = context;
    this.owner = new BlockOwner({
      blockTokens: () => context.pool().blockTokens,
      sequences: () => context.sequences(),
    });
    context.tree.onForget = (node) => {
      for (const block of node.engine.blocks) if (block?.nodes.delete(node)) this.prune(block);
    };
    context.tree.onRecompute = (node) => {
      node.engine.state = 'unknown';
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
        node.engine.blocks = [];
        this.mark(node, 'unknown');
        this.context.tree.prune(node);
      }
    }
    this.blocks.clear();
    this.offloaded.clear();
    this.storedSince = 0;
    this.sizeSeen = false;
  }

  /** Nodes of the sequence are new or have moved: those from `firstNew` on get the engine blocks at their places. */
  relink(sequence: Sequence): void {
    for (let k = sequence.firstNew; k < sequence.nodes.length; k++) {
      const node = sequence.nodes[k] as PrefixNode;
      if (node.to === node.from || !node.known) continue;
      const blocks = sequence.engine.slice(node.from, node.to);
      if (blocks.every((block) => block === undefined)) continue;
      this.give(node, blocks);
    }
  }

  /**
   * Better counts have come for nodes of one prompt, from its start: each gets the blocks, of both accounts, that are
   * at its place.
   */
  restack(nodes: readonly PrefixNode[]): void {
    const blocks: (EngineBlock | undefined)[] = [];
    for (const { engine, from } of nodes) {
      for (let i = 0; i < engine.blocks.length; i++) blocks[from + i] ??= engine.blocks[i];
    }
    this.context.pool().restack(nodes);
    for (const node of nodes) if (node.known) this.give(node, blocks.slice(node.from, node.to));
  }

  /** The sequence is over, and late events of it are too. */
  release(sequence: Sequence): void {
    for (const block of sequence.engine) if (block?.sequence === sequence) block.sequence = undefined;
  }

  private stored(event: BlocksStored): void {
    if (event.medium !== 'GPU') {
      this.offload(event.hashes);
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

  private offload(hashes: readonly number[]): void {
    for (const hash of hashes) {
      if (this.offloaded.size < MAX_OFFLOADED) this.offloaded.set(hash, (this.offloaded.get(hash) ?? 0) + 1);
    }
  }

  /**
   * Whether the event names every block of a run of a prompt. Sliding windows and partial blocks of a hybrid model do
   * not describe prefixes.
   */
  private isWhole(event: BlocksStored): boolean {
    const { specKind } = event;
    if (specKind === undefined ? !this.groups.has(event.group) : !WHOLE_PROMPT_KINDS.has(specKind)) return false;
    const { blockTokens } = this.context.pool();
    if (event.blockSize !== blockTokens) {
      if (!this.sizeSeen) this.mismatch(event.blockSize, blockTokens);
      return false;
    }
    this.sizeSeen = true;
    if (this.mismatched) {
      this.mismatched = false;
      // The events before, in blocks of another size, were not applied.
      this.enter('turning', LOST);
    }
    return event.tokenIds.length === event.hashes.length * event.blockSize;
  }

  private mismatch(eventTokens: number, blockTokens: number): void {
    const problem = `KV events speak of blocks of ${eventTokens} tokens, vllm:cache_config_info of ${blockTokens}: is the events' endpoint that of this instance?`;
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

  /** The engine's cache was reset: it holds nothing any more. */
  clearAll(): void {
    for (const block of this.blocks.values()) block.copies = 0;
    for (const block of this.blocks.values()) {
      for (const node of block.nodes) this.judge(node);
      this.prune(block);
    }
  }

  /** The tree was emptied: the text of the blocks is not known any more. */
  detach(): void {
    for (const block of this.blocks.values()) {
      block.nodes.clear();
      block.sequence = undefined;
    }
  }

  private cleared(): void {
    this.clearAll();
    this.context.pool().resetCached();
    // Blocks that no event has named are gone too.
    if (this.state === 'turning') this.enter('exact', '');
  }

  /**
   * Forgets a block that the engine no longer holds, and those before it that only led to it. A block whose text is
   * known stays, since it has the same hash when it returns.
   */
  private prune(block: EngineBlock): void {
    let one: EngineBlock | undefined = block;
    while (one && one.copies === 0 && one.children === 0 && one.nodes.size === 0 && this.blocks.get(one.hash) === one) {
      this.blocks.delete(one.hash);
      one = one.parent;
      if (one) one.children -= 1;
    }
  }

  /** Finds the request that brought the run, and with it the run's text. */
  private attribute(
    blocks: readonly EngineBlock[],
    first: number,
    parent: EngineBlock | undefined,
    event: BlocksStored,
  ): void {
    const pieces = event.tokenIds.map((id) => this.context.vocabulary.get(id));
    const owner = this.owner.find({ first, parent, event, pieces });
    if (!owner) return;
    this.assign(owner.sequence, blocks, first, parent);
    for (const piece of pieces) if (!piece) owner.sequence.unknownTokens += 1;
    if (owner.place) this.align(owner.sequence, first, pieces, owner.place);
  }

  private assign(
    sequence: Sequence,
    run: readonly EngineBlock[],
    first: number,
    parent: EngineBlock | undefined,
  ): void {
    const { engine } = sequence;
    sequence.heard = true;
    for (let i = 0; i < run.length; i++) this.link(sequence, first + i, run[i] as EngineBlock);
    // The blocks that it found cached, as far as they are not linked to its text yet.
    for (let at = first - 1, block = parent; block && at >= 0 && engine[at] === undefined; at--, block = block.parent) {
      this.link(sequence, at, block);
    }
  }

  private link(sequence: Sequence, index: number, block: EngineBlock): void {
    sequence.engine[index] = block;
    block.sequence = sequence;
    const node = nodeAt(sequence.nodes, index);
    if (!node?.known) return;
    const at = index - node.from;
    if (node.engine.blocks[at] === block) return;
    node.engine.blocks[at]?.nodes.delete(node);
    const blocks = node.engine.blocks.slice();
    blocks[at] = block;
    node.engine.blocks = blocks;
    block.nodes.add(node);
    this.judge(node);
  }

  private give(node: PrefixNode, blocks: (EngineBlock | undefined)[]): void {
    for (const block of node.engine.blocks) block?.nodes.delete(node);
    node.engine.blocks = blocks;
    for (const block of blocks) block?.nodes.add(node);
    this.judge(node);
  }

  /** Follows the run's tokens through the prompt's text: the ends of its byte blocks become exact. */
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
    if (isUneven(nodes)) this.restack(nodes.filter((node) => node.known));
    this.relink(sequence);
  }

  /** Whether the engine holds the node, as far as its blocks are known. */
  private judge(node: PrefixNode): void {
    const { blocks } = node.engine;
    let known = node.to > node.from;
    let held = true;
    for (let i = 0; i < node.to - node.from; i++) {
      const block = blocks[i];
      if (!block) known = false;
      else if (block.copies === 0) held = false;
    }
    this.mark(node, !held ? 'gone' : known ? 'held' : 'unknown');
    // Also without a change: the block that was removed may have been the last one held.
    if (!held) this.context.tree.prune(node);
  }

  private mark(node: PrefixNode, state: EngineMark['state']): void {
    if (node.engine.state === state) return;
    node.engine.state = state;
    this.context.tree.settle(node);
    this.context.tree.prune(node);
  }

  private enter(state: EventState, problem: string): void {
    this.state = state;
    this.problem = problem;
    this.context.onState();
  }
}

/** Nodes that other requests have laid out by estimates do not meet. */
function isUneven(nodes: readonly PrefixNode[]): boolean {
  return nodes.some((node, k) => k > 0 && node.from !== (nodes[k - 1] as PrefixNode).to);
}
