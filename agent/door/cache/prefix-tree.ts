import type { EngineBlock } from './engine-block.ts';

/** One byte block of some prompt, with everything before it: what the fleet calls a prefix block, and how it lies in the engine's own blocks. */
export interface PrefixNode {
  readonly hash: number;
  readonly parent: PrefixNode | undefined;
  /** its own bytes, one character each; fewer than a block's at the end of a sequence, none where prompts cannot part inside it */
  readonly text: string;
  /** nodes that continue this one */
  children: number;
  /** the newest of them, and of those of its parent the ones before and after it */
  newest: PrefixNode | undefined;
  older: PrefixNode | undefined;
  newer: PrefixNode | undefined;
  /** prompt tokens up to its end, as well as is known */
  tokens: number;
  /** tokens beyond them that the engine found cached for prompts which part from this one right behind it; NaN: not seen yet */
  tail: number;
  /** of a block that came as an answer: the tokens of its prompt; NaN: it came as a prompt */
  promptTokens: number;
  /** `tokens` is the engine's own count, not an estimate */
  exact: boolean;
  /** engine blocks that end in it: `from` inclusive, `to` exclusive, counted from the start of the prompt. None in a thin node. */
  from: number;
  to: number;
  /** its engine blocks in the door's own account: the leading ones that it still holds */
  blocks: readonly number[];
  /** it holds all of them */
  shadowHeld: boolean;
  /** the engine blocks that events speak of, from `from` on; shorter or with holes while they are not all known */
  engine: (EngineBlock | undefined)[];
  /** whether they say that it is cached; `unknown` while one of them was not heard of: then the door's own account counts */
  events: 'held' | 'gone' | 'unknown';
  /** a thin node is cached while its leader is: the nearest node before it that is not thin; undefined: there is none */
  leader: PrefixNode | undefined;
  thin: Set<PrefixNode> | undefined;
  published: boolean;
}

/** Changes of a view of cached prefix blocks. */
export interface BlockDelta {
  /** `add` is the whole view */
  reset: boolean;
  add: number[];
  /** one for each of `add`: tokens that a prompt finds cached of which this is the last cached block; 0: not known */
  tokens: number[];
  remove: number[];
}

/** Changes remembered between two drains; beyond, the delta is the whole view. */
const MAX_DELTA = 262_144;
/** Nodes behind one that are looked at for a beginning in common, the newest. */
const MAX_SHARING = 16;
/** Half an engine block of the usual size: what a correction of a token count must come to before it is told. */
const MIN_TOKENS_TOLD = 8;

/**
 * The prefix blocks that an engine may hold, as a tree: every prompt is a path from its root. Two accounts mark what is held, the door's own and the engine's events; the one
 * in force is published as deltas.
 */
export class PrefixTree {
  /** called when a node is forgotten */
  onForget: (node: PrefixNode) => void = () => undefined;
  /** which account is in force */
  private byEvents = false;
  /** tail of nodes where none was seen */
  defaultTail = 0;
  private readonly nodes = new Map<number, PrefixNode>();
  /** the newest node without a parent */
  private newest: PrefixNode | undefined;
  private tails = 0;
  private published = 0;
  private added = new Set<number>();
  private removed = new Set<number>();
  private fresh = true;

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

  /** True if the view in force says that the engine holds it. */
  isHeld(node: PrefixNode): boolean {
    return this.byEvents ? isEventHeld(node) : isShadowHeld(node);
  }

  /** The end of a sequence behind `parent`, too short for a block of its own: known to this tree alone. */
  ensureTail(parent: PrefixNode | undefined, text: string): PrefixNode {
    this.tails += 1;
    return this.ensure(-this.tails, parent, text);
  }

  /** Of the newest nodes behind `parent`, the one that shares most of its beginning with `next`, and how many bytes; undefined: none does. */
  sharing(parent: PrefixNode | undefined, next: string): { node: PrefixNode; bytes: number } | undefined {
    let best: { node: PrefixNode; bytes: number } | undefined;
    let node = parent ? parent.newest : this.newest;
    for (let looked = 0; node && looked < MAX_SHARING; looked++, node = node.older) {
      const bytes = sharedLength(node.text, next);
      if (bytes > (best?.bytes ?? 0)) best = { node, bytes };
    }
    return best;
  }

  /** Leading engine blocks of a node that are left although the node as a whole is not held: caches lose prompts from their ends. */
  leftOf(node: PrefixNode): number {
    if (!this.byEvents || node.events === 'unknown') return node.blocks.length;
    let left = 0;
    while ((node.engine[left]?.copies ?? 0) > 0) left += 1;
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
    this.forgetDelta();
  }

  /** The node of `hash` behind `parent`, made if it is new; a new one begins where its parent ends and is held by nobody. */
  ensure(hash: number, parent: PrefixNode | undefined, text: string): PrefixNode {
    const known = this.nodes.get(hash);
    if (known) return known;
    const at = parent?.to ?? 0;
    const older = parent ? parent.newest : this.newest;
    const node: PrefixNode = {
      hash, parent, text, children: 0, newest: undefined, older, newer: undefined, tokens: parent?.tokens ?? 0, tail: NaN, promptTokens: NaN, exact: false, from: at, to: at, blocks: [], shadowHeld: false, engine: [], events: 'unknown',
      leader: undefined, thin: undefined, published: false,
    };
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
    this.tellChange(node, before);
  }

  setTail(node: PrefixNode, tail: number): void {
    const before = this.hitTokens(node);
    node.tail = tail;
    this.tellChange(node, before);
  }

  /** Tokens that are expected to be cached of a prompt of which this is the last cached node. */
  hitTokens(node: PrefixNode): number {
    return node.tokens + (Number.isNaN(node.tail) ? this.defaultTail : node.tail);
  }

  /** To be called after a change of what either account says of the node. */
  settle(node: PrefixNode): void {
    this.publish(node);
    if (node.thin) for (const thin of node.thin) this.publish(thin);
  }

  /** Forgets the node, and those before it that nobody holds any more, if nothing continues them. */
  prune(node: PrefixNode): void {
    let one: PrefixNode | undefined = node;
    while (one && !leadsOn(one) && isEmpty(one) && this.nodes.get(one.hash) === one) {
      // The ends of thin runs first: those before them are then free to go.
      if (one.thin) for (const thin of [...one.thin].toReversed()) if (thin.children === 0) this.remove(thin);
      if (one.children > 0) return;
      const { parent }: PrefixNode = one;
      this.remove(one);
      // A thin node is kept by its leader; one whose leader holds nothing, or that has none, by what continues it.
      one = parent && (!isThin(parent) || !parent.leader || isEmpty(parent.leader)) ? parent : undefined;
    }
  }

  clear(): void {
    this.nodes.clear();
    this.newest = undefined;
    this.published = 0;
    this.forgetDelta();
  }

  all(): Iterable<PrefixNode> {
    return this.nodes.values();
  }

  get hasDelta(): boolean {
    return this.fresh || this.added.size > 0 || this.removed.size > 0;
  }

  /** The next delta is the whole view. */
  requestReset(): void {
    this.forgetDelta();
  }

  /** Changes since the last call. */
  drainDelta(): BlockDelta {
    const delta: BlockDelta = { reset: this.fresh, add: [], tokens: [], remove: this.fresh ? [] : [...this.removed] };
    const note = (node: PrefixNode | undefined): void => {
      if (!node?.published) return;
      delta.add.push(node.hash);
      delta.tokens.push(Math.max(0, Math.round(this.hitTokens(node))));
    };
    if (this.fresh) for (const node of this.nodes.values()) note(node);
    else for (const hash of this.added) note(this.nodes.get(hash));
    this.added.clear();
    this.removed.clear();
    this.fresh = false;
    return delta;
  }

  private publish(node: PrefixNode): void {
    // Requests and engine blocks may still speak of a node that was forgotten.
    if (this.nodes.get(node.hash) !== node) return;
    const held = node.hash > 0 && this.isHeld(node);
    if (held === node.published) return;
    node.published = held;
    this.published += held ? 1 : -1;
    if (held) {
      this.removed.delete(node.hash);
      this.added.add(node.hash);
    } else {
      this.added.delete(node.hash);
      this.removed.add(node.hash);
    }
    this.boundDelta();
  }

  private tellChange(node: PrefixNode, before: number): void {
    if (!node.published || Math.abs(this.hitTokens(node) - before) < MIN_TOKENS_TOLD) return;
    this.added.add(node.hash);
    this.boundDelta();
  }

  private remove(node: PrefixNode): void {
    if (node.published) {
      node.published = false;
      this.published -= 1;
      this.added.delete(node.hash);
      this.removed.add(node.hash);
      this.boundDelta();
    }
    this.unlead(node);
    this.nodes.delete(node.hash);
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
    // A forgotten node, which a request in flight may still lay out, is led by nobody.
    if (isThin(node) && this.nodes.get(node.hash) === node) follow(node, wideAt(node.parent));
  }

  private unlead(node: PrefixNode): void {
    node.leader?.thin?.delete(node);
    node.leader = undefined;
    if (!node.thin) return;
    // What it led is led by the one before it.
    for (const thin of node.thin) {
      follow(thin, wideAt(node.parent));
      this.publish(thin);
    }
    node.thin = undefined;
  }

  private forgetDelta(): void {
    this.added.clear();
    this.removed.clear();
    this.fresh = true;
  }

  private boundDelta(): void {
    if (this.added.size + this.removed.size > MAX_DELTA) this.forgetDelta();
  }
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

/** Something continues it that is not thin and led by it alone. */
function leadsOn(node: PrefixNode): boolean {
  if (node.children === 0) return false;
  let thinLast = 0;
  if (node.thin) for (const thin of node.thin) if (thin.parent === node) thinLast += 1;
  return thinLast < node.children;
}

function isEmpty(node: PrefixNode): boolean {
  return node.blocks.length === 0 && !node.engine.some((block) => block !== undefined && block.copies > 0);
}

function isShadowHeld(node: PrefixNode): boolean {
  return isThin(node) ? (node.leader?.shadowHeld ?? true) : node.shadowHeld;
}

function isEventHeld(node: PrefixNode): boolean {
  const wide = isThin(node) ? node.leader : node;
  return !wide || wide.events === 'held' || (wide.events === 'unknown' && wide.shadowHeld);
}
