import type { PrefixTree } from './prefix-tree.ts';
import type { PrefixNode, Sequence } from './records.ts';

/** Lays out nodes: after how many tokens each ends, and which engine blocks end in it. */
export class NodeLayout {
  private readonly tree: PrefixTree;
  private readonly blockTokens: number;

  constructor(tree: PrefixTree, blockTokens: number) {
    this.tree = tree;
    this.blockTokens = blockTokens;
  }

  /** Engine blocks that are full after so many tokens. */
  blockAt(tokens: number, atLeast: number): number {
    return Math.max(atLeast, Math.floor(tokens / this.blockTokens + 1e-9));
  }

  /** The node begins where `parent` ends, and ends after `tokens` tokens. */
  place(node: PrefixNode, parent: PrefixNode | undefined, tokens: number, exact: boolean): void {
    const from = parent?.to ?? 0;
    this.tree.place(node, tokens, exact, from, this.blockAt(tokens, from));
  }

  /** Lays out the new nodes of the prompt between exact counts and the prompt's end, in the proportions of `ends`. */
  interpolate({ nodes, firstNew, ends, prompt, promptTokens }: Sequence): void {
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
      for (let k = at; k < next; k++) {
        const tokens = fromTokens + ((ends[k] as number) - fromExpected) * scale;
        this.place(nodes[k] as PrefixNode, nodes[k - 1], tokens, false);
      }
      if (anchor) this.place(anchor, nodes[next - 1], anchor.tokens, true);
      fromTokens = toTokens;
      fromExpected = ends[next] ?? 0;
      at = next + 1;
    }
  }
}

/** Tokens up to the place where a prompt parts from a known continuation, `bytes` into it. */
export function sharedTokens({ node, bytes }: { node: PrefixNode; bytes: number }): number {
  const before = node.parent?.tokens ?? 0;
  return before + ((node.tokens - before) * bytes) / node.text.length;
}
