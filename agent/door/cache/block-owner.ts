import type { BlocksStored } from '../kv-events/kv-event.ts';
import type { EngineBlock, Sequence } from './records.ts';
import { byteOfToken, nodeAt } from './sequence.ts';
import { locate, type TokenPlace } from './token-text.ts';

/** A run may end this far beyond what a request is believed to have: factor and tokens. */
const MAX_EXCESS = 1.25;
const MIN_EXCESS = 128;
/** Error of a prompt's length before the engine has reported it. */
const LENGTH_ERROR = 0.03;

/** What the attribution needs of the view around it. */
export interface BlockOwnerContext {
  /** tokens of an engine block */
  blockTokens(): number;
  /** sequences in order of their admission, those that have just ended included */
  sequences(): Iterable<Sequence>;
}

/**
 * The request that brought a run of blocks, and where the run's tokens stand in its text; undefined: not looked for, or
 * not found.
 */
export interface Owner {
  sequence: Sequence;
  place: TokenPlace | undefined;
}

/**
 * A run of stored blocks: its first block's index in its sequence, the block before it, the event, and the text of its
 * tokens.
 */
export interface StoredRun {
  first: number;
  parent: EngineBlock | undefined;
  event: BlocksStored;
  pieces: readonly (Buffer | undefined)[];
}

/** Finds the request that brought a run of stored blocks, by its place, its tokens and their text. */
export class BlockOwner {
  private readonly context: BlockOwnerContext;
  private readonly loras = new Set<string>();

  constructor(context: BlockOwnerContext) {
    this.context = context;
  }

  /**
   * The request that has the run's text or tokens; where too little is known of them, the only request that can be it.
   */
  find(run: StoredRun): Owner | undefined {
    const { first, parent } = run;
    // Nearly always the next block of an answer.
    const last = parent?.sequence;
    if (last && isNext(last, run) && this.isBehindPrompt(last, first)) return { sequence: last, place: undefined };
    let best: Owner | undefined;
    let possible: Sequence | undefined;
    let count = 0;
    for (const sequence of this.context.sequences()) {
      if (!this.mayFollow(sequence, run)) continue;
      const place = this.placeOf(sequence, run);
      if (place === 'absent') continue;
      if (place === 'unknown') {
        // Then the blocks before the run must be this request's.
        if (parent && !isAt(sequence, first - 1, parent)) continue;
        possible = sequence;
        count += 1;
      } else if (!best || (place?.found ?? 1) > (best.place?.found ?? 1)) best = { sequence, place };
      if (best && (best.place?.found ?? 1) >= 1) break;
    }
    return best ?? (count === 1 && possible ? { sequence: possible, place: undefined } : undefined);
  }

  private mayFollow({ prompt, engine, tokens }: Sequence, { first, parent, event }: StoredRun): boolean {
    if (engine[first] !== undefined) return false;
    if ((first + event.hashes.length) * event.blockSize > MAX_EXCESS * tokens + MIN_EXCESS) return false;
    if (event.loraName !== undefined) this.loras.add(event.loraName);
    if (event.loraName === undefined ? this.loras.has(prompt.model) : prompt.model !== event.loraName) return false;
    if (!parent) return event.extraKeys === undefined || this.hasSalt(event.extraKeys[0] ?? [], prompt.cacheSalt);
    // The block before it may end in a prefix block that this prompt does not share: the tokens decide.
    return engine[first - 1] === undefined || engine[first - 1] === parent;
  }

  /**
   * Whether the keys of a prompt's first block are those of the salt. Those of images are strings too in some versions:
   * without a salt, no other request's is among them.
   */
  private hasSalt(keys: readonly unknown[], salt: string): boolean {
    if (salt !== '') return keys.includes(salt);
    if (keys.length === 0) return true;
    for (const { prompt } of this.context.sequences()) {
      if (prompt.cacheSalt !== '' && keys.includes(prompt.cacheSalt)) return false;
    }
    return true;
  }

  /** Whether the block at that place is of the answer, as far as the prompt's length is known. */
  private isBehindPrompt({ promptTokens, prompt }: Sequence, first: number): boolean {
    const blockTokens = this.context.blockTokens();
    const least = prompt.exactTokens ? promptTokens : promptTokens * (1 - LENGTH_ERROR) - blockTokens;
    return first * blockTokens >= least;
  }

  /** Where the run's tokens stand in the prompt of a request; undefined: they are its own token ids. */
  private placeOf(sequence: Sequence, run: StoredRun): TokenPlace | undefined | 'absent' | 'unknown' {
    const { first, event, pieces } = run;
    const { prompt, promptTokens } = sequence;
    const token = first * this.context.blockTokens();
    if (token >= promptTokens) return 'unknown';
    if (!prompt.exactTokens) {
      const place = locate(pieces, prompt.text, byteOfToken(sequence, token), first === 0);
      return place === 'absent' && this.isBehindPrompt(sequence, first) ? 'unknown' : place;
    }
    const ids = event.tokenIds;
    // No more of a prompt is kept than is fingerprinted.
    const known = Math.min(ids.length, Math.floor(prompt.text.length / 4) - token);
    for (let i = 0; i < known; i++) {
      if (prompt.text.readUInt32LE((token + i) * 4) !== ids[i]) return 'absent';
    }
    return undefined;
  }
}

/** Whether the run follows right on the request's last known block. */
function isNext({ engine }: Sequence, { first, parent }: StoredRun): boolean {
  return engine[first - 1] === parent && engine[first] === undefined;
}

/** Whether the block at that place is the request's own, as far as is known. */
function isAt({ engine, nodes }: Sequence, index: number, block: EngineBlock): boolean {
  if (engine[index] !== undefined) return engine[index] === block;
  const node = nodeAt(nodes, index);
  return node !== undefined && block.nodes.has(node);
}
