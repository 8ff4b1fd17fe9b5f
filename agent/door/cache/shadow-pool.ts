import { FreeBlocks } from '../../../shared/blocks/free-blocks.ts';
import { BLOCK_BYTES, extendFingerprint } from '../../request/fingerprint.ts';
import type { CachePrompt } from '../../request/prompt.ts';
import { NodeLayout, sharedTokens } from './node-layout.ts';
import type { PrefixTree } from './prefix-tree.ts';
import type { Layout, PrefixNode, Sequence, SequenceEnd } from './records.ts';

/**
 * The door's own account of its engine's KV blocks: as many as the engine has, taken, shared, evicted and freed by
 * vLLM's rules (vllm/v1/core/block_pool.py, kv_cache_manager.py), driven by the requests that the door forwards. The
 * content of a block is known as text: the nodes of the tree that lie in it.
 */
export class ShadowPool extends FreeBlocks {
  readonly blockTokens: number;
  private readonly tree: PrefixTree;
  private readonly layout: NodeLayout;
  /** nodes that lie in a block and still hold it: several where prompts part inside a prefix block */
  private readonly owners: (PrefixNode[] | undefined)[];
  /** 1: full, so that the engine can hit it, whether or not its text is known */
  private readonly filled: Uint8Array;

  /** `count`: physical blocks, vLLM's null block included. */
  constructor(tree: PrefixTree, count: number, blockTokens: number) {
    super(count);
    this.tree = tree;
    this.blockTokens = blockTokens;
    this.layout = new NodeLayout(tree, blockTokens);
    this.owners = Array.from({ length: count });
    this.filled = new Uint8Array(count);
  }

  /** Tokens of blocks that live requests reference, shared blocks once. */
  get usedTokens(): number {
    return (this.count - 1 - this.freeCount) * this.blockTokens;
  }

  /**
   * Tokens by which `usedTokens` would grow if the prompt were admitted with `tokens` tokens: cached blocks without a
   * reference take room too once they have one.
   */
  claimTokens({ hashes }: CachePrompt, { nodes }: Layout, tokens: number): number {
    let blocks = Math.ceil(tokens / this.blockTokens);
    let left = this.hitLimit(tokens);
    for (let k = 0; k < hashes.length; k++) {
      const node = left > 0 ? this.tree.nodeOf(hashes[k] as number, nodes[k]) : undefined;
      if (!node) break;
      const held = node.shadow.blocks;
      for (let i = 0; i < held.length && left > 0; i++, left--) if (!this.isFree(held[i] as number)) blocks -= 1;
      if (!isHeld(node)) break;
    }
    return blocks * this.blockTokens;
  }

  /**
   * The engine admits the prompt, with `generated` tokens if it was preempted before: cached blocks are shared, the
   * others taken.
   */
  admit(prompt: CachePrompt, { promptTokens, ends, nodes }: Layout, generated: number): Sequence {
    const tokens = promptTokens + generated;
    const blocks = this.touchCached(prompt, nodes, this.hitLimit(tokens));
    const hitBlocks = blocks.length;
    const sequence: Sequence = {
      prompt,
      ends,
      promptTokens,
      tokens,
      nodes: [],
      firstNew: 0,
      blocks,
      engine: [],
      heard: false,
      alignment: undefined,
      unknownTokens: 0,
      closedMs: undefined,
    };
    this.resize(blocks, tokens);
    this.fill(blocks, hitBlocks, tokens);
    // Only now: taking blocks may have made the tree forget nodes.
    sequence.firstNew = this.addNodes(sequence, prompt.hashes, prompt.text, ends, nodes);
    this.own(sequence, hitBlocks);
    return sequence;
  }

  /**
   * `tokens` more were generated. False: there is no free block for them, so the engine preempts a request; they are
   * counted in `sequence` nevertheless.
   */
  grow(sequence: Sequence, tokens: number): boolean {
    sequence.tokens += tokens;
    return this.resize(sequence.blocks, sequence.tokens);
  }

  /** The sequence leaves with what the engine has reported of it. Its blocks stay cached until they are taken. */
  finish(sequence: Sequence, end: SequenceEnd): void {
    const { prompt, blocks } = sequence;
    if (end.promptTokens !== undefined) this.anchorPrompt(sequence, end.promptTokens);
    // The last sampled token is never computed.
    if (end.outputTokens !== undefined) sequence.tokens = sequence.promptTokens + Math.max(0, end.outputTokens - 1);
    this.resize(blocks, sequence.tokens);
    this.trim(sequence);
    if (end.answer) this.addAnswer(sequence, end.answer);
    else if (!prompt.exactTokens && sequence.nodes.length === prompt.hashes.length) {
      this.addTail(sequence, prompt.text.toString('latin1', prompt.hashes.length * BLOCK_BYTES), sequence.promptTokens);
    }
    this.own(sequence, sequence.nodes[sequence.firstNew]?.from ?? blocks.length);
    const full = Math.floor(sequence.tokens / this.blockTokens);
    const first = prompt.exactTokens ? Math.floor(sequence.promptTokens / this.blockTokens) : 0;
    for (let i = first; i < blocks.length; i++) {
      if (this.refs[blocks[i] as number] === 1) this.filled[blocks[i] as number] = i < full ? 1 : 0;
    }
    this.leave(sequence);
  }

  /** The sequence is preempted: its computed blocks stay cached, and it will be admitted again. */
  preempt(sequence: Sequence): void {
    const { blocks, tokens } = sequence;
    this.fill(blocks, 0, tokens);
    this.leave(sequence);
  }

  /** The engine never computed it: its new blocks hold nothing. */
  cancel(sequence: Sequence): void {
    for (let k = sequence.firstNew; k < sequence.nodes.length; k++) {
      const node = sequence.nodes[k] as PrefixNode;
      // Another request may have come to share it, and will compute it.
      if (node.shadow.blocks.every((block) => this.refs[block] === 1)) this.keep(node, []);
    }
    for (const block of sequence.blocks)
      if (this.refs[block] === 1 && !this.owners[block]?.length) this.filled[block] = 0;
    this.leave(sequence);
  }

  /** Forgets all content that no live request references: the engine's cache was reset. */
  resetCached(): void {
    for (let block = 1; block < this.count; block++) {
      if (!this.isFree(block) || this.filled[block] === 0) continue;
      this.lose(block);
    }
  }

  protected override hasContent(block: number): boolean {
    return this.filled[block] === 1;
  }

  protected override evict(block: number): void {
    this.lose(block);
  }

  /**
   * vLLM computes at least one token: the last block again if a prompt is cached to its end (kv_cache_manager.py,
   * get_computed_blocks).
   */
  private hitLimit(promptTokens: number): number {
    return Math.max(0, Math.floor((promptTokens - 1) / this.blockTokens));
  }

  /** References the cached blocks of a prompt, at most `limit`. `found`: as in Layout. */
  private touchCached(prompt: CachePrompt, found: readonly PrefixNode[], limit: number): number[] {
    const blocks: number[] = [];
    const touch = (cached: readonly number[]): void => {
      for (const block of cached) {
        if (blocks.length === limit) return;
        this.touch(block);
        blocks.push(block);
      }
    };
    let last: PrefixNode | undefined;
    for (let k = 0; k <= prompt.hashes.length; k++) {
      const node = k < prompt.hashes.length ? this.tree.nodeOf(prompt.hashes[k] as number, found[k]) : undefined;
      if (!node) {
        touch(this.partOf(prompt, k, last));
        break;
      }
      touch(node.shadow.blocks);
      if (!isHeld(node)) break;
      last = node;
    }
    return blocks;
  }

  /** Blocks of a known continuation of `last`, as far as the prompt matches it inside its byte block `k`. */
  private partOf(prompt: CachePrompt, k: number, last: PrefixNode | undefined): readonly number[] {
    if (prompt.exactTokens) return [];
    const shared = this.tree.sharing(last, prompt.text.toString('latin1', k * BLOCK_BYTES, (k + 1) * BLOCK_BYTES));
    if (!shared) return [];
    const { shadow, from } = shared.node;
    return shadow.blocks.slice(0, Math.max(0, this.layout.blockAt(sharedTokens(shared), 0) - from));
  }

  /** Notes which of the blocks from index `from` on are full with `tokens` tokens in all. */
  private fill(blocks: readonly number[], from: number, tokens: number): void {
    for (let i = from; i < blocks.length; i++) {
      this.filled[blocks[i] as number] = (i + 1) * this.blockTokens <= tokens ? 1 : 0;
    }
  }

  /** Takes blocks until there are enough for `tokens`. False: there were none left. */
  private resize(blocks: number[], tokens: number): boolean {
    while (blocks.length * this.blockTokens < tokens) {
      if (this.freeCount === 0) return false;
      blocks.push(this.allocate());
    }
    return true;
  }

  /**
   * Gives back surplus blocks that an estimate had taken. What the sequence has brought lies in the others: see `own`.
   */
  private trim({ blocks, tokens, nodes, firstNew }: Sequence): void {
    if (blocks.length === 0 || (blocks.length - 1) * this.blockTokens < tokens) return;
    for (let k = firstNew; k < nodes.length; k++) this.disownBlocks(nodes[k] as PrefixNode);
    while (blocks.length > 0 && (blocks.length - 1) * this.blockTokens >= tokens) {
      const block = blocks.pop() as number;
      if (this.refs[block] === 1) this.lose(block);
      this.release([block], 1);
    }
  }

  /**
   * Adds the nodes of further hashes, whose text is `text`; returns the index of the first that was not known before.
   * `ends`, `found`: as in Layout.
   */
  private addNodes(
    sequence: Sequence,
    hashes: Float64Array,
    text: Buffer,
    ends?: Float64Array,
    found: readonly PrefixNode[] = [],
  ): number {
    const { nodes, prompt } = sequence;
    // Shorter than one engine block: nothing of it can be hit.
    if (sequence.tokens < this.blockTokens) return nodes.length;
    let firstNew = -1;
    for (let k = 0; k < hashes.length; k++) {
      const hash = hashes[k] as number;
      const parent = nodes.at(-1);
      let node = this.tree.nodeOf(hash, found[k]);
      if (!node) {
        if (firstNew < 0) firstNew = nodes.length;
        const ownText = prompt.exactTokens ? '' : text.toString('latin1', k * BLOCK_BYTES, (k + 1) * BLOCK_BYTES);
        const tokens = Math.max(parent?.tokens ?? 0, ends?.[k] ?? 0);
        node = this.tree.ensure(hash, parent, ownText);
        this.layout.place(node, parent, tokens, prompt.exactTokens);
      }
      nodes.push(node);
    }
    return firstNew < 0 ? nodes.length : firstNew;
  }

  /**
   * The last bytes of the sequence, too few for a block of their own, get a tail node: conversations go on from there.
   */
  private addTail({ nodes }: Sequence, text: string, tokens: number): void {
    const parent = nodes.at(-1);
    const from = parent?.to ?? 0;
    if (text === '' || this.layout.blockAt(tokens, from) === from) return;
    const tail = this.tree.ensureTail(parent, text);
    this.layout.place(tail, parent, tokens, false);
    nodes.push(tail);
  }

  /** The engine has counted the prompt: the nodes that this sequence brought are laid out anew between exact counts. */
  private anchorPrompt(sequence: Sequence, promptTokens: number): void {
    sequence.tokens += promptTokens - sequence.promptTokens;
    sequence.promptTokens = promptTokens;
    if (!sequence.prompt.exactTokens) this.layout.interpolate(sequence);
  }

  /** Exact counts have come for some of the sequence's new nodes: the others are laid out between them. */
  relayout(sequence: Sequence): void {
    const { nodes, firstNew } = sequence;
    this.layout.interpolate(sequence);
    if (sequence.closedMs === undefined) this.own(sequence, nodes[firstNew]?.from ?? sequence.blocks.length);
  }

  /**
   * Better counts have come for nodes of one prompt, from its start: the blocks that the leading ones hold together are
   * shared out anew.
   */
  restack(nodes: readonly PrefixNode[]): void {
    const blocks: number[] = [];
    let held = 0;
    while (held < nodes.length && isHeld(nodes[held] as PrefixNode)) {
      blocks.push(...(nodes[held++] as PrefixNode).shadow.blocks);
    }
    for (let k = 0; k < held; k++) this.disownBlocks(nodes[k] as PrefixNode);
    for (let k = 0; k < nodes.length; k++) {
      const node = nodes[k] as PrefixNode;
      this.layout.place(node, nodes[k - 1], node.tokens, node.exact);
      if (k < held) this.give(node, blocks);
      else node.shadow.held = node.shadow.blocks.length > 0 && node.shadow.blocks.length === node.to - node.from;
      this.tree.settle(node);
    }
    // A node that has become thin, or holds nothing any more, may be the last of its path.
    const last = nodes.at(-1);
    if (last) this.tree.prune(last);
  }

  /** The answer is text of the next turn's prompt: its blocks get nodes. */
  private addAnswer(sequence: Sequence, answer: Buffer): void {
    const { prompt, nodes } = sequence;
    const { hashes } = prompt;
    if (nodes.length !== hashes.length) return;
    const more = extendFingerprint(prompt, prompt.text, answer);
    const rest = Buffer.concat([prompt.text.subarray(hashes.length * BLOCK_BYTES), answer]);
    const first = Math.min(this.addNodes(sequence, more.hashes, rest), nodes.length);
    const promptBlocks = prompt.text.length / BLOCK_BYTES;
    const perBlock = (sequence.tokens - sequence.promptTokens) / Math.max(1e-9, answer.length / BLOCK_BYTES);
    for (let k = first; k < nodes.length; k++) {
      const node = nodes[k] as PrefixNode;
      this.layout.place(node, nodes[k - 1], sequence.promptTokens + (k + 1 - promptBlocks) * perBlock, false);
      node.shadow.promptTokens = sequence.promptTokens;
    }
    sequence.firstNew = Math.min(sequence.firstNew, first);
    this.addTail(sequence, rest.toString('latin1', more.hashes.length * BLOCK_BYTES), sequence.tokens);
  }

  /** The sequence's nodes that end behind engine block `from`, and its thin ones, get its blocks. */
  private own(sequence: Sequence, from: number): void {
    const { blocks } = sequence;
    for (const node of sequence.nodes) {
      if ((node.to <= from && node.to !== node.from) || !node.known) continue;
      // The engine computes it anew: until its events confirm that, this account decides.
      if (node.engine.state === 'gone') this.tree.onRecompute(node);
      this.disownBlocks(node);
      this.give(node, blocks);
    }
  }

  /** The node becomes an owner of those blocks that it lies in; `blocks`: in order from the start of the prompt. */
  private give(node: PrefixNode, blocks: readonly number[]): void {
    const mine = node.to <= blocks.length ? blocks.slice(node.from, node.to) : [];
    node.shadow.blocks = mine;
    for (const block of mine) (this.owners[block] ??= []).push(node);
    node.shadow.held = mine.length > 0;
    this.tree.settle(node);
  }

  private leave(sequence: Sequence): void {
    this.release(sequence.blocks, sequence.blocks.length);
    sequence.blocks = [];
    const last = sequence.nodes.at(-1);
    if (last) this.tree.prune(last);
  }

  private disownBlocks(node: PrefixNode): void {
    for (const block of node.shadow.blocks) {
      const owners = this.owners[block];
      if (!owners) continue;
      const isAlone = owners.length === 1 && owners[0] === node;
      this.owners[block] = isAlone ? undefined : owners.filter((one) => one !== node);
    }
  }

  /** The block's content is gone. The nodes that lay in it keep the blocks before it. */
  private lose(block: number): void {
    this.filled[block] = 0;
    for (const node of this.owners[block] ?? []) {
      const { blocks } = node.shadow;
      this.keep(node, blocks.slice(0, blocks.indexOf(block)));
    }
  }

  /** The node keeps only these of its blocks, the leading ones. */
  private keep(node: PrefixNode, left: readonly number[]): void {
    this.disownBlocks(node);
    for (const one of left) (this.owners[one] ??= []).push(node);
    node.shadow.blocks = left;
    node.shadow.held = false;
    this.tree.settle(node);
    this.tree.prune(node);
  }
}

/** Held as a whole; a thin node is held where the one before it is. */
function isHeld(node: PrefixNode): boolean {
  return node.shadow.held || node.to === node.from;
}
