import { BLOCK_BYTES } from '../../request/fingerprint.ts';
import type { CachePrompt } from '../../request/prompt.ts';
import type { EngineBlock } from './engine-block.ts';
import type { PrefixNode } from './prefix-tree.ts';
import type { Alignment } from './token-text.ts';

/** How a prompt is expected to lie in tokens. */
export interface Layout {
  /** its tokens: exact where its beginning is known, the rest by its words */
  promptTokens: number;
  /** tokens before the end of each of its byte blocks, and at last before the end of its text */
  ends: Float64Array;
}

/** One request's run of engine blocks, from its admission to shortly after its end. */
export interface Sequence {
  readonly prompt: CachePrompt;
  /** as in Layout: what was expected before anything was told */
  readonly ends: Float64Array;
  /** prompt tokens: better known than the prompt's own estimate where its beginning is known; the engine's count once it has told */
  promptTokens: number;
  /** tokens that have a place in the KV cache: prompt and answer */
  tokens: number;
  /** byte blocks of the prompt, and of the answer once it is there */
  nodes: PrefixNode[];
  /** the first of `nodes` that this sequence has brought */
  firstNew: number;
  /** its blocks in the door's own account, in order; 0: there was no room, as the account is not the engine's */
  blocks: number[];
  /** its blocks as the engine's events tell them, by their place in the sequence; holes where they are not known */
  engine: (EngineBlock | undefined)[];
  /** events have told of blocks that it took */
  heard: boolean;
  /** how far the tokens of its events were followed through its text */
  alignment: Alignment | undefined;
  /** tokens in those events whose text is not known */
  unknownTokens: number;
  /** clock ms of its end; undefined before */
  closedMs: number | undefined;
}

/** What an engine told of a request at its end; undefined where it did not. */
export interface SequenceEnd {
  promptTokens: number | undefined;
  outputTokens: number | undefined;
  /** text that the next turn of a conversation has behind this prompt; undefined: not known, or not to be repeated */
  answer: Buffer | undefined;
}

/** The byte block in which the engine block at `index` ends, among the nodes of a sequence; undefined where its text is not in a whole byte block. */
export function nodeAt(nodes: readonly PrefixNode[], index: number): PrefixNode | undefined {
  let low = 0;
  let high = nodes.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((nodes[middle] as PrefixNode).to > index) high = middle;
    else low = middle + 1;
  }
  const node = nodes[low];
  return node && node.from <= index ? node : undefined;
}

/** Where so many tokens of a prompt end in its text, as well as is known. */
export function byteOfToken({ nodes, prompt, promptTokens }: Sequence, tokens: number): number {
  let before = 0;
  for (let k = 0; k < nodes.length; k++) {
    const node = nodes[k] as PrefixNode;
    if (node.tokens >= tokens) return Math.floor(BLOCK_BYTES * (k + (tokens - before) / Math.max(1, node.tokens - before)));
    before = node.tokens;
  }
  const at = BLOCK_BYTES * Math.min(nodes.length, prompt.hashes.length);
  return Math.min(prompt.text.length, Math.floor(at + ((tokens - before) / Math.max(1, promptTokens - before)) * (prompt.text.length - at)));
}
