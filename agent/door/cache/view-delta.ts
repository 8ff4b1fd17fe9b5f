import type { PrefixNode } from './records.ts';

/** Changes of a view of cached prefix blocks. */
export interface BlockDelta {
  /** `add` is the whole view */
  reset: boolean;
  add: number[];
  /** one for each of `add`: tokens that a prompt finds cached if this is its last cached block; 0: not known */
  tokens: number[];
  remove: number[];
}

/** Changes remembered between two drains; beyond, the delta is the whole view. */
const MAX_DELTA = 262_144;
/** Half an engine block of the usual size: smaller corrections of a token count are not worth publishing. */
const MIN_TOKENS_CHANGE = 8;

/** What has changed in the published view since the last delta was taken. The first delta is the whole view. */
export class ViewDelta {
  private readonly added = new Set<number>();
  private readonly removed = new Set<number>();
  private fresh = true;

  get isEmpty(): boolean {
    return !this.fresh && this.added.size === 0 && this.removed.size === 0;
  }

  add(hash: number): void {
    this.removed.delete(hash);
    this.added.add(hash);
    this.bound();
  }

  remove(hash: number): void {
    this.added.delete(hash);
    this.removed.add(hash);
    this.bound();
  }

  /** The expected tokens of a published block have changed from `before` to `after`. */
  recount(hash: number, before: number, after: number): void {
    if (Math.abs(after - before) < MIN_TOKENS_CHANGE) return;
    // Not `add`: a forgotten node of the same hash, which may get better counts too, does not bring the block back.
    this.added.add(hash);
    this.bound();
  }

  /** The next delta is the whole view. */
  reset(): void {
    this.added.clear();
    this.removed.clear();
    this.fresh = true;
  }

  /**
   * Takes the changes since the last call. `nodes`: the tree's, by hash; `tokensOf`: tokens that a prompt finds up to a
   * node.
   */
  drain(nodes: ReadonlyMap<number, PrefixNode>, tokensOf: (node: PrefixNode) => number): BlockDelta {
    const delta: BlockDelta = { reset: this.fresh, add: [], tokens: [], remove: this.fresh ? [] : [...this.removed] };
    const note = (node: PrefixNode | undefined): void => {
      if (!node?.published) return;
      delta.add.push(node.hash);
      delta.tokens.push(Math.max(0, Math.round(tokensOf(node))));
    };
    if (this.fresh) for (const node of nodes.values()) note(node);
    else for (const hash of this.added) note(nodes.get(hash));
    this.added.clear();
    this.removed.clear();
    this.fresh = false;
    return delta;
  }

  private bound(): void {
    if (this.added.size + this.removed.size > MAX_DELTA) this.reset();
  }
}
