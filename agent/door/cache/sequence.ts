import { BLOCK_BYTES } from '../../request/fingerprint.ts';
import type { PrefixNode, Sequence } from './records.ts';

/**
 * The byte block in which the engine block at `index` ends, among the nodes of a sequence; undefined where its text is
 * not in a whole byte block.
 */
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

/** The byte of a prompt's text at which its first `tokens` tokens end, as well as is known. */
export function byteOfToken({ nodes, prompt, promptTokens }: Sequence, tokens: number): number {
  let before = 0;
  for (let k = 0; k < nodes.length; k++) {
    const node = nodes[k] as PrefixNode;
    if (node.tokens >= tokens) {
      return Math.floor(BLOCK_BYTES * (k + (tokens - before) / Math.max(1, node.tokens - before)));
    }
    before = node.tokens;
  }
  const at = BLOCK_BYTES * Math.min(nodes.length, prompt.hashes.length);
  const share = (tokens - before) / Math.max(1, promptTokens - before);
  return Math.min(prompt.text.length, Math.floor(at + share * (prompt.text.length - at)));
}
