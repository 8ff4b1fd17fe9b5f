import { BLOCK_BYTES, fingerprint } from '../../agent/request/fingerprint.ts';
import type { BlocksStored } from '../../agent/door/kv-events/kv-event.ts';
import { EngineBlocks } from '../../agent/door/cache/engine-blocks.ts';
import { PrefixTree } from '../../agent/door/cache/prefix-tree.ts';
import type { CachePrompt } from '../../agent/request/prompt.ts';
import type { Layout, PrefixNode, Sequence } from '../../agent/door/cache/records.ts';
import { ShadowPool } from '../../agent/door/cache/shadow-pool.ts';
import { Vocabulary } from '../../agent/door/cache/token-text.ts';

/** The rig's tokenizer: four bytes of text are one token. */
const TOKEN_BYTES = 4;

/**
 * Both accounts of one engine's blocks on one tree, without the view around them; and what a subscriber of the tree's
 * deltas holds.
 */
export class CacheRig {
  readonly tree = new PrefixTree();
  readonly vocabulary = new Vocabulary();
  readonly pool: ShadowPool;
  readonly events: EngineBlocks;
  readonly live: Sequence[] = [];
  readonly ended: Sequence[] = [];
  /** what the drained deltas add up to */
  readonly mirror = new Set<number>();
  nowMs = 0;
  readonly warnings: string[] = [];

  constructor(count = 65, blockTokens = 16) {
    this.pool = new ShadowPool(this.tree, count, blockTokens);
    this.events = new EngineBlocks({
      tree: this.tree,
      vocabulary: this.vocabulary,
      pool: () => this.pool,
      nowMs: () => this.nowMs,
      sequences: () => [...this.live, ...this.ended],
      warn: (problem) => void this.warnings.push(problem),
      onState: () => this.tree.setSource(this.events.state === 'exact'),
    });
  }

  /** Admits a prompt and keeps it among the live ones. */
  admit(prompt: CachePrompt, generated = 0): Sequence {
    const sequence = this.pool.admit(prompt, layoutOf(prompt), generated);
    this.live.push(sequence);
    return sequence;
  }

  /** Ends a sequence; `answer` is text behind its prompt. */
  finish(sequence: Sequence, outputTokens = 1, answer?: Buffer): void {
    this.leave(sequence);
    this.pool.finish(sequence, { promptTokens: sequence.prompt.promptTokens, outputTokens, answer });
    this.events.relink(sequence);
    sequence.closedMs = this.nowMs;
    this.ended.push(sequence);
    if (this.ended.length > 16) this.events.release(this.ended.shift() as Sequence);
  }

  leave(sequence: Sequence): void {
    this.live.splice(this.live.indexOf(sequence), 1);
  }

  /** Applies what the tree tells next; returns it. */
  drain(): ReturnType<PrefixTree['drainDelta']> {
    const delta = this.tree.drainDelta();
    if (delta.reset) this.mirror.clear();
    for (const hash of delta.remove) this.mirror.delete(hash);
    for (const hash of delta.add) this.mirror.add(hash);
    return delta;
  }

  /** Hashes of the whole byte blocks that the account in force holds. */
  held(): number[] {
    return [...this.tree.all()].filter((node) => node.hash > 0 && this.tree.isHeld(node)).map(({ hash }) => hash);
  }

  /** Leading byte blocks of a prompt that the account in force holds. */
  depth(prompt: CachePrompt): number {
    let depth = 0;
    for (const hash of prompt.hashes) {
      const node = this.tree.get(hash);
      if (!node || !this.tree.isHeld(node)) break;
      depth += 1;
    }
    return depth;
  }

  /** Teaches the vocabulary the tokens of a text. */
  learn(text: Buffer): void {
    for (const [at, id] of tokenIds(text).entries())
      this.vocabulary.learn(id, text.toString('latin1', at * TOKEN_BYTES, (at + 1) * TOKEN_BYTES).replaceAll(' ', '▁'));
  }

  /**
   * Applies the event that stores a prompt's blocks from `first` to before `end`; their hashes are `base` plus their
   * place.
   */
  tellStored(
    prompt: CachePrompt,
    base: number,
    first = 0,
    end = Math.floor(tokenIds(prompt.text).length / 16),
    changes: Partial<BlocksStored> = {},
  ): void {
    const hashes = Array.from({ length: end - first }, (_, at) => base + first + at);
    const ids = tokenIds(prompt.text).slice(first * 16, end * 16);
    this.events.apply([storedRun(hashes, first > 0 ? base + first - 1 : undefined, ids, changes)]);
  }

  nodesOf(prompt: CachePrompt): PrefixNode[] {
    const nodes: PrefixNode[] = [];
    for (const hash of prompt.hashes) {
      const node = this.tree.get(hash);
      if (!node) break;
      nodes.push(node);
    }
    return nodes;
  }
}

/** Text of `bytes` bytes that differs in every word from that of another name. */
export function uniqueText(bytes: number, name = 'a'): string {
  let out = '';
  for (let n = 0; out.length < bytes; n++) out += `${name}${(n * 7919) % 9973} `;
  return out.slice(0, bytes);
}

/** A prompt of text, by the rig's tokenizer. */
export function textPrompt(text: string | Buffer, changes: Partial<CachePrompt> = {}): CachePrompt {
  const bytes = Buffer.from(text);
  const { hashes, end } = fingerprint(bytes, {
    salt: '',
    model: changes.model ?? 'm',
    cacheSalt: changes.cacheSalt ?? '',
  });
  return {
    hashes,
    end,
    text: bytes,
    model: 'm',
    cacheSalt: '',
    promptTokens: Math.ceil(bytes.length / TOKEN_BYTES),
    tokensPerBlock: BLOCK_BYTES / TOKEN_BYTES,
    exactTokens: false,
    ...changes,
  };
}

/** A prompt of token ids. */
export function idsPrompt(ids: readonly number[], changes: Partial<CachePrompt> = {}): CachePrompt {
  return textPrompt(Buffer.from(Int32Array.from(ids).buffer), { exactTokens: true, ...changes });
}

export function layoutOf({ hashes, promptTokens, tokensPerBlock }: CachePrompt): Layout {
  const ends = new Float64Array(hashes.length + 1);
  for (let k = 0; k < hashes.length; k++) ends[k] = (k + 1) * tokensPerBlock;
  ends[hashes.length] = promptTokens;
  return { promptTokens, ends, nodes: [] };
}

/** Ids of a text's tokens: its bytes, four at a time. */
export function tokenIds(text: Buffer): number[] {
  return Array.from({ length: Math.floor(text.length / TOKEN_BYTES) }, (_, at) => text.readUInt32LE(at * TOKEN_BYTES));
}

/** A run of blocks stored on the GPU, a token for each place in them. */
export function storedRun(
  hashes: readonly number[],
  parent: number | undefined,
  ids: readonly number[],
  changes: Partial<BlocksStored> = {},
): BlocksStored {
  return {
    type: 'stored',
    hashes,
    parent,
    tokenIds: ids,
    blockSize: 16,
    loraName: undefined,
    extraKeys: undefined,
    medium: 'GPU',
    group: 0,
    specKind: undefined,
    ...changes,
  };
}

/** The end of copies of blocks. */
export function removedBlocks(
  hashes: readonly number[],
  medium = 'GPU',
  group = 0,
): { type: 'removed'; hashes: readonly number[]; medium: string; group: number } {
  return { type: 'removed', hashes, medium, group };
}
