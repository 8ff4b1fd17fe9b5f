import type { PrefixNode } from './records.ts';
import { type BlockDelta, ViewDelta } from './view-delta.ts';

/** Continuations of a node that are searched for a shared beginning: the newest. */
const MAX_SHARING = 16;
/** Shared by the many nodes without blocks. */
const NO_BLOCKS: readonly never[] = [];

/**
 * The prefix blocks that an engine may hold, as a tree: every prompt is a path from its root. Two accounts mark what is
 * held, the door's own and the engine's events; the one in force is published as deltas.
 */
export class PrefixTree {
  /** called when a node is forgotten */
  onForget: (node: PrefixNode) => void = () => undefined;
  /** called when the engine computes a node anew that its events have reported gone */
  onRecompute: (node: PrefixNode) => void = () => undefined;
  /** which account is in force */
  private byEvents = false;
  /** tail of nodes where none was seen */
  defaultTail = 0;
  private readonly nodes = new Map<number, PrefixNode>();
  private readonly delta = new ViewDelta();
  /** the newest node without a parent */
  private newest: PrefixNode | undefined;
  private tails = 0;
  private published = 0;

  /** Blocks of the view in force. */
  get blockCount(): number {
    return this.published;
  }

  /** Blocks remembered, held or not: for tests of its bound. */
  get size(): number {
    return this.nodes.size;
  }

  get(hash: number): PrefixNode | undefined {
    return this.nodes.get(hash);
  }

  /**
   * The node of `hash`; `found`: what an earlier search for that hash found, which is still right unless it was
   * forgotten.
   */
  nodeOf(hash: number, found: PrefixNode | undefined): PrefixNode | undefined {
    return found?.known ? found : this.nodes.get(hash);
  }

  /** True if the account in force has the engine hold it. */
  isHeld(node: PrefixNode): boolean {
    return this.byEvents ? isEventHeld(node) : isShadowHeld(node);
  }

  /** The end of a sequence behind `parent`, too short for a block of its own: never published. */
  ensureTail(parent: PrefixNode | undefined, text: string): PrefixNode {
    this.tails += 1;
    return this.ensure(-this.tails, parent, text);
  }

  /**
   * Of the newest nodes behind `parent`, the one that shares most of its beginning with `next`, and how many bytes;
   * undefined: none shares any.
   */
  sharing(parent: PrefixNode | undefined, next: string): { node: PrefixNode; bytes: number } | undefined {
    let best: { node: PrefixNode; bytes: number } | undefined;
    let node = parent ? parent.newest : this.newest;
    for (let looked = 0; node && looked < MAX_SHARING; looked++, node = node.older) {
      const bytes = sharedLength(node.text, next);
      if (bytes > (best?.bytes ?? 0)) best = { node, bytes };
    }
    return best;
  }

  /** Leading engine blocks that are left of a node that is not held as a whole: caches lose prompts from their ends. */
  leftOf(node: PrefixNode): number {
    if (!this.byEvents || node.engine.state === 'unknown') return node.shadow.blocks.length;
    let left = 0;
    while ((node.engine.blocks[left]?.copies ?? 0) > 0) left += 1;
    return left;
  }

  /** Changes the account in force: the next delta is the whole view. */
  setSource(byEvents: boolean): void {
    if (byEvents === this.byEvents) return;
    this.byEvents = byEvents;
    this.published = 0;
    for (const node of this.nodes.values()) {
      node.published = node.hash > 0 && this.isHeld(node);
      if (node.published) this.published += 1;
    }
    this.delta.reset();
  }

  /**
   * The node of `hash` behind `parent`, made if it is new; a new one begins where its parent ends and is held by
   * nobody.
   */
  ensure(hash: number, parent: PrefixNode | undefined, text: string): PrefixNode {
    const known = this.nodes.get(hash);
    if (known) return known;
    const older = parent ? parent.newest : this.newest;
    const node = newNode(hash, parent, text, older);
    if (older) older.newer = node;
    this.setNewest(parent, node);
    if (parent) parent.children += 1;
    this.nodes.set(hash, node);
    this.lead(node);
    return node;
  }

  /** Where the node ends: its tokens, and the engine blocks that end in it. */
  place(node: PrefixNode, tokens: number, exact: boolean, from: number, to: number): void {
    this.setTokens(node, tokens, exact);
    if (node.from === from && node.to === to) return;
    this.unlead(node);
    node.from = from;
    node.to = to;
    this.lead(node);
    this.publish(node);
  }

  setTokens(node: PrefixNode, tokens: number, exact: boolean): void {
    const before = this.hitTokens(node);
    node.tokens = tokens;
    node.exact = exact;
    if (node.published) this.delta.recount(node.hash, before, this.hitTokens(node));
  }

  setTail(node: PrefixNode, tail: number): void {
    const before = this.hitTokens(node);
    node.tail = tail;
    if (node.published) this.delta.recount(node.hash, before, this.hitTokens(node));
  }

  /** Expected cached tokens of a prompt whose last cached node this is. */
  hitTokens(node: PrefixNode): number {
    return node.tokens + (Number.isNaN(node.tail) ? this.defaultTail : node.tail);
  }

  /** To be called after an account has changed its mark of the node. */
  settle(node: PrefixNode): void {
    this.publish(node);
    if (node.thin) for (const thin of node.thin) this.publish(thin);
  }

  /** Forgets the node, and those before it that nobody holds any more, if nothing continues them. */
  prune(node: PrefixNode): void {
    let one: PrefixNode | undefined = node;
    while (one && !leadsOn(one) && isEmpty(one) && one.known) {
      // The ends of thin runs first: those before them are then free to go.
      if (one.thin) for (const thin of [...one.thin].toReversed()) if (thin.children === 0) this.remove(thin);
      if (one.children > 0) return;
      const { parent }: PrefixNode = one;
      this.remove(one);
      // A thin node is kept by its leader, or, if that holds nothing or is missing, by what continues it.
      one = parent && (!isThin(parent) || !parent.leader || isEmpty(parent.leader)) ? parent : undefined;
    }
  }

  clear(): void {
    for (const node of this.nodes.values()) node.known = false;
    this.nodes.clear();
    this.newest = undefined;
    this.published = 0;
    this.delta.reset();
  }

  all(): Iterable<PrefixNode> {
    return this.nodes.values();
  }

  get hasDelta(): boolean {
    return !this.delta.isEmpty;
  }

  /** The next delta is the whole view. */
  requestReset(): void {
    this.delta.reset();
  }

  /** Changes since the last call. */
  drainDelta(): BlockDelta {
    return this.delta.drain(this.nodes, (node) => this.hitTokens(node));
  }

  private publish(node: PrefixNode): void {
    // Requests and engine blocks may still refer to a node that was forgotten.
    if (!node.known) return;
    const held = node.hash > 0 && this.isHeld(node);
    if (held === node.published) return;
    node.published = held;
    this.published += held ? 1 : -1;
    if (held) this.delta.add(node.hash);
    else this.delta.remove(node.hash);
  }

  private remove(node: PrefixNode): void {
    if (node.published) {
      node.published = false;
      this.published -= 1;
      this.delta.remove(node.hash);
    }
    this.unlead(node);
    this.nodes.delete(node.hash);
    node.known = false;
    this.onForget(node);
    const { parent, older, newer } = node;
    if (parent) parent.children -= 1;
    if (older) older.newer = newer;
    if (newer) newer.older = older;
    else this.setNewest(parent, older);
  }

  private setNewest(parent: PrefixNode | undefined, node: PrefixNode | undefined): void {
    if (parent) parent.newest = node;
    else this.newest = node;
  }

  private lead(node: PrefixNode): void {
    // A request in flight may still lay out a forgotten node, which nothing leads.
    if (isThin(node) && node.known) follow(node, wideAt(node.parent));
  }

  private unlead(node: PrefixNode): void {
    node.leader?.thin?.delete(node);
    node.leader = undefined;
    if (!node.thin) return;
    // The leader before it takes over the nodes that it led.
    for (const thin of node.thin) {
      follow(thin, wideAt(node.parent));
      this.publish(thin);
    }
    node.thin = undefined;
  }
}

/** All nodes are made here, so that they share one hidden class. */
function newNode(
  hash: number,
  parent: PrefixNode | undefined,
  text: string,
  older: PrefixNode | undefined,
): PrefixNode {
  const at = parent?.to ?? 0;
  return {
    hash,
    parent,
    text,
    known: true,
    children: 0,
    newest: undefined,
    older,
    newer: undefined,
    tokens: parent?.tokens ?? 0,
    tail: NaN,
    exact: false,
    from: at,
    to: at,
    leader: undefined,
    thin: undefined,
    published: false,
    shadow: { blocks: NO_BLOCKS, held: false, promptTokens: undefined },
    engine: { blocks: NO_BLOCKS, state: 'unknown' },
  };
}

function follow(thin: PrefixNode, leader: PrefixNode | undefined): void {
  thin.leader = leader;
  if (leader) (leader.thin ??= new Set()).add(thin);
}

/** The node itself if it is not thin, else its leader. */
function wideAt(node: PrefixNode | undefined): PrefixNode | undefined {
  return node && isThin(node) ? node.leader : node;
}

/** No engine block ends in it: its text is shorter than one. */
function isThin(node: PrefixNode): boolean {
  return node.to === node.from;
}

function sharedLength(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  let at = 0;
  while (at < length && a.charCodeAt(at) === b.charCodeAt(at)) at += 1;
  return at;
}

/** It has a continuation other than the thin nodes that it leads itself. */
function leadsOn(node: PrefixNode): boolean {
  if (node.children === 0) return false;
  let thinLast = 0;
  if (node.thin) for (const thin of node.thin) if (thin.parent === node) thinLast += 1;
  return thinLast < node.children;
}

function isEmpty({ shadow, engine }: PrefixNode): boolean {
  return shadow.blocks.length === 0 && !engine.blocks.some((block) => block !== undefined && block.copies > 0);
}

function isShadowHeld(node: PrefixNode): boolean {
  return isThin(node) ? (node.leader?.shadow.held ?? true) : node.shadow.held;
}

function isEventHeld(node: PrefixNode): boolean {
  const wide = isThin(node) ? node.leader : node;
  return !wide || wide.engine.state === 'held' || (wide.engine.state === 'unknown' && wide.shadow.held);
}
