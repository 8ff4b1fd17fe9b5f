import { FreeBlocks } from '../../../shared/blocks/free-blocks.ts';
import { BLOCK_BYTES, extendFingerprint } from '../../request/fingerprint.ts';
import type { CachePrompt } from '../../request/prompt.ts';
import type { PrefixNode, PrefixTree } from './prefix-tree.ts';
import type { Layout, Sequence, SequenceEnd } from './sequence.ts';

/**
 * The door's own account of its engine's KV blocks: as many as the engine has, taken, shared, evicted and freed by vLLM's rules (vllm/v1/core/block_pool.py,
 * kv_cache_manager.py), driven by the requests that the door forwards. What lies in a block is known by the text it stands for: a node of the tree.
 */
export class ShadowPool extends FreeBlocks {
  readonly blockTokens: number;
  private readonly tree: PrefixTree;
  /** nodes that lie in a block, where it still counts: several where prompts part inside a prefix block */
  private readonly owners: (PrefixNode[] | undefined)[];
  /** 1: full, so that the engine could hit it, whether or not its text is known */
  private readonly filled: Uint8Array;

  /** `count`: physical blocks, vLLM's null block included. */
  constructor(tree: PrefixTree, count: number, blockTokens: number) {
    super(count);
    this.tree = tree;
    this.blockTokens = blockTokens;
    this.owners = Array.from({ length: count });
    this.filled = new Uint8Array(count);
  }

  /** Tokens of blocks that live requests reference, shared blocks once. */
  get usedTokens(): number {
    return (this.count - 1 - this.freeCount) * this.blockTokens;
  }

  /** Tokens by which `usedTokens` would grow if the prompt were admitted: blocks that lie cached without a reference take room too once they have one. */
  claimTokens(prompt: CachePrompt, promptTokens: number): number {
    let blocks = Math.ceil(promptTokens / this.blockTokens);
    let left = this.hitLimit(promptTokens);
    for (const hash of prompt.hashes) {
      const node = left > 0 ? this.tree.get(hash) : undefined;
      if (!node) break;
      for (let i = 0; i < node.blocks.length && left > 0; i++, left--) if (!this.isFree(node.blocks[i] as number)) blocks -= 1;
      if (!isHeld(node)) break;
    }
    return blocks * this.blockTokens;
  }

  /** The engine admits the prompt, with `generated` tokens if it was preempted before: cached blocks are shared, the others taken. */
  admit(prompt: CachePrompt, { promptTokens, ends }: Layout, generated: number): Sequence {
    const tokens = promptTokens + generated;
    const blocks = this.touchCached(prompt, this.hitLimit(tokens));
    const hitBlocks = blocks.length;
    const sequence: Sequence = { prompt, ends, promptTokens, tokens, nodes: [], firstNew: 0, blocks, engine: [], heard: false, alignment: undefined, unknownTokens: 0, closedMs: undefined };
    this.resize(blocks, tokens);
    for (let i = hitBlocks; i < blocks.length; i++) this.filled[blocks[i] as number] = (i + 1) * this.blockTokens <= tokens ? 1 : 0;
    // Only now: taking blocks may have made the tree forget nodes.
    sequence.firstNew = this.addNodes(sequence, prompt.hashes, ends, prompt.text);
    this.own(sequence, hitBlocks);
    return sequence;
  }

  /** `tokens` more were generated. False: there is no free block for them; the engine preempts somebody, and they are in `sequence` all the same. */
  grow(sequence: Sequence, tokens: number): boolean {
    sequence.tokens += tokens;
    return this.resize(sequence.blocks, sequence.tokens);
  }

  /** The sequence leaves with all that the engine told of it. Its blocks stay cached until they are taken. */
  finish(sequence: Sequence, end: SequenceEnd): void {
    const { prompt, blocks } = sequence;
    if (end.promptTokens !== undefined) this.anchorPrompt(sequence, end.promptTokens);
    // The last sampled token is never computed.
    if (end.outputTokens !== undefined) sequence.tokens = sequence.promptTokens + Math.max(0, end.outputTokens - 1);
    this.resize(blocks, sequence.tokens);
    this.trim(sequence);
    if (end.answer) this.addAnswer(sequence, end.answer);
    else if (!prompt.exactTokens && sequence.nodes.length === prompt.hashes.length) this.addTail(sequence, prompt.text.toString('latin1', prompt.hashes.length * BLOCK_BYTES), sequence.promptTokens);
    this.own(sequence, sequence.nodes[sequence.firstNew]?.from ?? blocks.length);
    const full = Math.floor(sequence.tokens / this.blockTokens);
    for (let i = prompt.exactTokens ? Math.floor(sequence.promptTokens / this.blockTokens) : 0; i < blocks.length; i++) {
      if (this.refs[blocks[i] as number] === 1) this.filled[blocks[i] as number] = i < full ? 1 : 0;
    }
    this.leave(sequence);
  }

  /** The sequence is preempted: what it has computed stays cached, and it will be admitted again. */
  preempt(sequence: Sequence): void {
    for (let i = 0; i < sequence.blocks.length; i++) this.filled[sequence.blocks[i] as number] = (i + 1) * this.blockTokens <= sequence.tokens ? 1 : 0;
    this.leave(sequence);
  }

  /** The engine never computed it: what it would have brought is not there. */
  cancel(sequence: Sequence): void {
    for (let k = sequence.firstNew; k < sequence.nodes.length; k++) {
      const node = sequence.nodes[k] as PrefixNode;
      // Another request may have come to share it, and will compute it.
      if (node.blocks.every((block) => this.refs[block] === 1)) this.keep(node, []);
    }
    for (const block of sequence.blocks) if (this.refs[block] === 1 && !this.owners[block]?.length) this.filled[block] = 0;
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

  /** vLLM computes at least one token: of a prompt that is cached to its end, the last block again (kv_cache_manager.py, get_computed_blocks). */
  private hitLimit(promptTokens: number): number {
    return Math.max(0, Math.floor((promptTokens - 1) / this.blockTokens));
  }

  /** References the cached blocks of a prompt, at most `limit`. */
  private touchCached(prompt: CachePrompt, limit: number): number[] {
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
      const node = k < prompt.hashes.length ? this.tree.get(prompt.hashes[k] as number) : undefined;
      if (!node) {
        touch(this.partOf(prompt, k, last));
        break;
      }
      touch(node.blocks);
      if (!isHeld(node)) break;
      last = node;
    }
    return blocks;
  }

  /** Blocks of a known continuation of `last`, as far as the prompt goes with it inside its byte block `k`. */
  private partOf(prompt: CachePrompt, k: number, last: PrefixNode | undefined): readonly number[] {
    if (prompt.exactTokens) return [];
    const shared = this.tree.sharing(last, prompt.text.toString('latin1', k * BLOCK_BYTES, (k + 1) * BLOCK_BYTES));
    if (!shared) return [];
    return shared.node.blocks.slice(0, Math.max(0, this.blockAt(sharedTokens(shared), 0) - shared.node.from));
  }

  /** Takes blocks until there are enough for `tokens`. False: there were none left. */
  private resize(blocks: number[], tokens: number): boolean {
    while (blocks.length * this.blockTokens < tokens) {
      if (this.freeCount === 0) return false;
      blocks.push(this.allocate());
    }
    return true;
  }

  /** Gives back blocks that an estimate had taken too many. What the sequence has brought lies in the others: `own` tells where. */
  private trim({ blocks, tokens, nodes, firstNew }: Sequence): void {
    if (blocks.length === 0 || (blocks.length - 1) * this.blockTokens < tokens) return;
    for (let k = firstNew; k < nodes.length; k++) this.disownBlocks(nodes[k] as PrefixNode);
    while (blocks.length > 0 && (blocks.length - 1) * this.blockTokens >= tokens) {
      const block = blocks.pop() as number;
      if (this.refs[block] === 1) this.lose(block);
      this.release([block], 1);
    }
  }

  /** Adds the nodes of further hashes, whose text is `text`; returns the place of the first that was not known before. */
  private addNodes(sequence: Sequence, hashes: Float64Array, ends: Float64Array | undefined, text: Buffer): number {
    const { nodes, prompt } = sequence;
    // Shorter than one engine block: nothing of it can be hit.
    if (sequence.tokens < this.blockTokens) return nodes.length;
    let firstNew = -1;
    for (let k = 0; k < hashes.length; k++) {
      const hash = hashes[k] as number;
      const parent = nodes.at(-1);
      const known = this.tree.get(hash);
      const node = known ?? this.tree.ensure(hash, parent, prompt.exactTokens ? '' : text.toString('latin1', k * BLOCK_BYTES, (k + 1) * BLOCK_BYTES));
      if (!known) {
        if (firstNew < 0) firstNew = nodes.length;
        const tokens = Math.max(parent?.tokens ?? 0, ends?.[k] ?? 0);
        this.tree.place(node, tokens, prompt.exactTokens, parent?.to ?? 0, this.blockAt(tokens, parent?.to ?? 0));
      }
      nodes.push(node);
    }
    return firstNew < 0 ? nodes.length : firstNew;
  }

  /** The last bytes of the sequence, too few for a node of their own, are known by a tail: conversations go on from there. */
  private addTail({ nodes }: Sequence, text: string, tokens: number): void {
    const parent = nodes.at(-1);
    const from = parent?.to ?? 0;
    const to = this.blockAt(tokens, from);
    if (text === '' || to === from) return;
    const tail = this.tree.ensureTail(parent, text);
    this.tree.place(tail, tokens, false, from, to);
    nodes.push(tail);
  }

  private blockAt(tokens: number, atLeast: number): number {
    return Math.max(atLeast, Math.floor(tokens / this.blockTokens + 1e-9));
  }

  /** The engine has counted the prompt: the places of what this sequence brought, between what was known exactly, follow from it. */
  private anchorPrompt(sequence: Sequence, promptTokens: number): void {
    sequence.tokens += promptTokens - sequence.promptTokens;
    sequence.promptTokens = promptTokens;
    if (!sequence.prompt.exactTokens) this.interpolate(sequence);
  }

  /** Lays out what the sequence has brought of its prompt: between exact counts, and the prompt's end, as its words let expect. */
  private interpolate({ nodes, firstNew, ends, prompt, promptTokens }: Sequence): void {
    const last = Math.min(nodes.length, prompt.hashes.length);
    let at = firstNew;
    let fromTokens = nodes[firstNew - 1]?.tokens ?? 0;
    let fromExpected = ends[firstNew - 1] ?? 0;
    while (at < last) {
      let next = at;
      while (next < last && !(nodes[next] as PrefixNode).exact) next += 1;
      const anchor = next < last ? (nodes[next] as PrefixNode) : undefined;
      const toTokens = Math.max(fromTokens, anchor?.tokens ?? promptTokens);
      const scale = (toTokens - fromTokens) / Math.max(1e-9, (ends[anchor ? next : last] as number) - fromExpected);
      for (let k = at; k < next; k++) this.replace(nodes, k, fromTokens + ((ends[k] as number) - fromExpected) * scale, false);
      if (anchor) this.replace(nodes, next, anchor.tokens, true);
      fromTokens = toTokens;
      fromExpected = ends[next] ?? 0;
      at = next + 1;
    }
  }

  /** Exact counts have come for some of what the sequence has brought: the rest is laid out between them. */
  relayout(sequence: Sequence): void {
    const { nodes, firstNew } = sequence;
    this.interpolate(sequence);
    if (sequence.closedMs === undefined) this.own(sequence, nodes[firstNew]?.from ?? sequence.blocks.length);
  }

  /** Better counts have come for nodes of one prompt, from its start: the blocks that the leading ones hold together are shared out anew. */
  restack(nodes: readonly PrefixNode[]): void {
    const blocks: number[] = [];
    let held = 0;
    while (held < nodes.length && isHeld(nodes[held] as PrefixNode)) blocks.push(...(nodes[held++] as PrefixNode).blocks);
    for (let k = 0; k < held; k++) this.disownBlocks(nodes[k] as PrefixNode);
    for (let k = 0; k < nodes.length; k++) {
      const node = nodes[k] as PrefixNode;
      this.replace(nodes, k, node.tokens, node.exact);
      if (k < held) this.give(node, blocks);
      else node.shadowHeld = node.blocks.length > 0 && node.blocks.length === node.to - node.from;
      this.tree.settle(node);
    }
    // One that has become thin, or holds nothing any more, may be the last of its path.
    const last = nodes.at(-1);
    if (last) this.tree.prune(last);
  }

  /** Moves the end of a node that this account has brought itself. */
  private replace(nodes: readonly PrefixNode[], k: number, tokens: number, exact: boolean): void {
    const from = nodes[k - 1]?.to ?? 0;
    this.tree.place(nodes[k] as PrefixNode, tokens, exact, from, this.blockAt(tokens, from));
  }

  /** The answer is text of the next turn's prompt: its blocks get their names. */
  private addAnswer(sequence: Sequence, answer: Buffer): void {
    const { prompt, nodes } = sequence;
    const { hashes } = prompt;
    if (nodes.length !== hashes.length) return;
    const more = extendFingerprint(prompt, prompt.text, answer);
    const rest = Buffer.concat([prompt.text.subarray(hashes.length * BLOCK_BYTES), answer]);
    const first = Math.min(this.addNodes(sequence, more.hashes, undefined, rest), nodes.length);
    const promptBlocks = prompt.text.length / BLOCK_BYTES;
    const perBlock = (sequence.tokens - sequence.promptTokens) / Math.max(1e-9, answer.length / BLOCK_BYTES);
    for (let k = first; k < nodes.length; k++) {
      this.replace(nodes, k, sequence.promptTokens + (k + 1 - promptBlocks) * perBlock, false);
      (nodes[k] as PrefixNode).promptTokens = sequence.promptTokens;
    }
    sequence.firstNew = Math.min(sequence.firstNew, first);
    this.addTail(sequence, rest.toString('latin1', more.hashes.length * BLOCK_BYTES), sequence.tokens);
  }

  private own(sequence: Sequence, from: number): void {
    const { blocks } = sequence;
    for (const node of sequence.nodes) {
      if ((node.to <= from && node.to !== node.from) || this.tree.get(node.hash) !== node) continue;
      // The engine computes it anew: until its events say so, this account speaks for it.
      if (node.events === 'gone') node.events = 'unknown';
      this.disownBlocks(node);
      this.give(node, blocks);
    }
  }

  /** Those of the blocks, in order from the start of the prompt, that the node lies in become its own. */
  private give(node: PrefixNode, blocks: readonly number[]): void {
    const mine = node.to <= blocks.length ? blocks.slice(node.from, node.to) : [];
    node.blocks = mine;
    for (const block of mine) (this.owners[block] ??= []).push(node);
    node.shadowHeld = mine.length > 0;
    this.tree.settle(node);
  }

  private leave(sequence: Sequence): void {
    this.release(sequence.blocks, sequence.blocks.length);
    sequence.blocks = [];
    const last = sequence.nodes.at(-1);
    if (last) this.tree.prune(last);
  }

  private disownBlocks(node: PrefixNode): void {
    for (const block of node.blocks) {
      const owners = this.owners[block];
      if (owners) this.owners[block] = owners.length === 1 && owners[0] === node ? undefined : owners.filter((one) => one !== node);
    }
  }

  /** The block's content is gone. Of the nodes that lay in it, the blocks before it are left. */
  private lose(block: number): void {
    this.filled[block] = 0;
    for (const node of this.owners[block] ?? []) this.keep(node, node.blocks.slice(0, node.blocks.indexOf(block)));
  }

  /** Of the node's blocks these are left. */
  private keep(node: PrefixNode, left: readonly number[]): void {
    this.disownBlocks(node);
    for (const one of left) (this.owners[one] ??= []).push(node);
    node.blocks = left;
    node.shadowHeld = false;
    this.tree.settle(node);
    this.tree.prune(node);
  }
}

/** Tokens up to the place where a prompt parts from a known continuation. */
export function sharedTokens({ node, bytes }: { node: PrefixNode; bytes: number }): number {
  const before = node.parent?.tokens ?? 0;
  return before + ((node.tokens - before) * bytes) / node.text.length;
}

/** Held as a whole; a thin node is where the one before it is. */
function isHeld(node: PrefixNode): boolean {
  return node.shadowHeld || node.to === node.from;
}
