/** A run of blocks that all chains through it share. */
interface Node {
  /** a chain that the run is part of, from its own first block on */
  chain: Float64Array;
  from: number;
  to: number;
  /** chains through it */
  count: number;
  /** by their first block */
  children: Map<number, Node>;
}

/**
 * Chains of prefix hashes, and how far a prompt runs along any of them: a radix tree. A hash stands for its block and
 * all before it, so two chains that agree at one place agree up to it: a run is compared by halving, and adding a chain
 * of thousands of blocks costs a few comparisons and copies nothing.
 */
export class ChainSet {
  private readonly root: Node = { chain: new Float64Array(0), from: 0, to: 0, count: 0, children: new Map() };

  /** Chains added and not deleted. */
  get size(): number {
    return this.root.count;
  }

  /** Adds a chain of at least one hash; it is kept, not copied. */
  add(chain: Float64Array): void {
    let node = this.root;
    node.count += 1;
    while (node.to < chain.length) {
      const first = chain[node.to] as number;
      const child = node.children.get(first);
      if (!child) {
        node.children.set(first, { chain, from: node.to, to: chain.length, count: 1, children: new Map() });
        return;
      }
      const shared = agreedTo(child, chain);
      if (shared < child.to) split(child, shared);
      child.count += 1;
      node = child;
    }
  }

  /** Takes back a chain that was added. */
  delete(chain: Float64Array): void {
    let node = this.root;
    node.count -= 1;
    while (node.to < chain.length) {
      const first = chain[node.to] as number;
      const child = node.children.get(first);
      if (!child) return;
      child.count -= 1;
      if (child.count === 0) {
        node.children.delete(first);
        if (node !== this.root) join(node);
        return;
      }
      node = child;
    }
    join(node);
  }

  /** Leading blocks of the prompt that some chain begins with. */
  match(prompt: Float64Array): number {
    let node = this.root;
    let depth = 0;
    while (depth < prompt.length && depth === node.to) {
      const child = node.children.get(prompt[depth] as number);
      if (!child) break;
      depth = agreedTo(child, prompt);
      node = child;
    }
    return depth;
  }
}

/** Place up to which a chain that shares the node's first block agrees with the node. */
function agreedTo({ chain, from, to }: Node, other: Float64Array): number {
  let agreed = from + 1;
  let limit = Math.min(to, other.length);
  while (agreed < limit) {
    const middle = (agreed + limit + 1) >>> 1;
    if (chain[middle - 1] === other[middle - 1]) agreed = middle;
    else limit = middle - 1;
  }
  return agreed;
}

function split(node: Node, at: number): void {
  const rest: Node = { ...node, from: at };
  node.to = at;
  node.children = new Map([[node.chain[at] as number, rest]]);
}

/** Undoes a split that no chain needs any more. */
function join(node: Node): void {
  const [child] = node.children.values();
  if (!child || child.count !== node.count) return;
  node.chain = child.chain;
  node.to = child.to;
  node.children = child.children;
}
