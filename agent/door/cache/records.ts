import type { CachePrompt } from '../../request/prompt.ts';
import type { ProbeSource } from './token-probe.ts';
import type { Alignment } from './token-text.ts';

/**
 * One byte block of a prompt, with everything before it: what the fleet calls a prefix block, and where it lies in the
 * engine's own blocks. Its fields are grouped by their one writer: `shadow` and `engine` by the two accounts, the rest
 * by PrefixTree.
 */
export interface PrefixNode {
  readonly hash: number;
  readonly parent: PrefixNode | undefined;
  /** its own bytes, one character each; shorter at the end of a sequence, empty for prompts of token ids */
  readonly text: string;
  /** false once the tree has forgotten it; another node may have its hash then */
  known: boolean;
  /** nodes that continue this one */
  children: number;
  /** the newest of them */
  newest: PrefixNode | undefined;
  /** its neighbours among the children of its parent, by age */
  older: PrefixNode | undefined;
  newer: PrefixNode | undefined;
  /** prompt tokens up to its end, as well as is known */
  tokens: number;
  /** tokens beyond them that the engine found cached for prompts that part right behind it; NaN: not seen yet */
  tail: number;
  /** `tokens` is the engine's own count, not an estimate */
  exact: boolean;
  /**
   * engine blocks that end in it: `from` inclusive, `to` exclusive, counted from the start of the prompt; none in a
   * thin node
   */
  from: number;
  to: number;
  /**
   * A thin node is cached while its leader is: the nearest node before it that is not thin. Undefined: there is none.
   */
  leader: PrefixNode | undefined;
  /** the thin nodes that it leads */
  thin: Set<PrefixNode> | undefined;
  published: boolean;
  readonly shadow: ShadowMark;
  readonly engine: EngineMark;
}

/** What the door's own account knows of a node; written by ShadowPool alone. */
export interface ShadowMark {
  /** physical blocks of its leading engine blocks that are still held */
  blocks: readonly number[];
  /** all its engine blocks are held */
  held: boolean;
  /** of a block that came as an answer: the tokens of its prompt; undefined: it came as a prompt */
  promptTokens: number | undefined;
}

/** What the engine's events say of a node; written by EngineBlocks alone. */
export interface EngineMark {
  /** its engine blocks, from `from` on; shorter or with holes while not all of them are known */
  blocks: readonly (EngineBlock | undefined)[];
  /** `unknown`: no event has named one of them, so the door's own account decides */
  state: 'held' | 'gone' | 'unknown';
}

/** One KV block of an engine as its events describe it. */
export interface EngineBlock {
  readonly hash: number;
  readonly parent: EngineBlock | undefined;
  /** blocks before it in its sequence; −1: no event has named one of them */
  readonly index: number;
  /** physical copies that the engine holds */
  copies: number;
  /** blocks that follow it */
  children: number;
  /**
   * the prefix blocks that it ends in: several where prompts part inside a prefix block, none while its text is not
   * known
   */
  readonly nodes: Set<PrefixNode>;
  /** the request in flight that brought it or found it last */
  sequence: Sequence | undefined;
}

/** How a prompt is expected to lie in tokens. */
export interface Layout {
  /** its tokens: exact where its beginning is known, the rest estimated by its words */
  promptTokens: number;
  /** tokens before the end of each of its byte blocks; the last entry is the end of its text */
  ends: Float64Array;
  /** nodes of its leading byte blocks as they were found; some may have been forgotten since, see PrefixTree.nodeOf */
  nodes: readonly PrefixNode[];
}

/** What the view predicts for a prompt that is about to go to the engine. */
export interface CacheLook extends Layout {
  /** tokens of its longest cached prefix, as the engine will count them: whole blocks, never all of the prompt */
  hitTokens: number;
  /**
   * last block of that prefix, where the prompt parts from what is known; undefined: the engine has evicted the next
   * block
   */
  hit: PrefixNode | undefined;
}

/** One request's run of engine blocks, from its admission to shortly after its end. */
export interface Sequence {
  readonly prompt: CachePrompt;
  /** as in Layout: what was expected before the engine reported anything */
  readonly ends: Float64Array;
  /** prompt tokens: the layout's estimate, then the engine's count once it is reported */
  promptTokens: number;
  /** tokens that have a place in the KV cache: prompt and answer */
  tokens: number;
  /** byte blocks of the prompt, and of the answer once it is there */
  nodes: PrefixNode[];
  /** index in `nodes` of the first that this sequence has brought */
  firstNew: number;
  /** its blocks in the door's own account, in order; fewer than its tokens need where that account had no room */
  blocks: number[];
  /** its blocks as the engine's events name them, by their place in the sequence; holes where they are not known */
  engine: (EngineBlock | undefined)[];
  /** events have named blocks that it took */
  heard: boolean;
  /** how far the tokens of its events were followed through its text */
  alignment: Alignment | undefined;
  /** tokens in those events whose text is not known */
  unknownTokens: number;
  /** clock ms of its end; undefined before */
  closedMs: number | undefined;
}

/** What an engine reported of a request at its end; undefined where it did not. */
export interface SequenceEnd {
  promptTokens: number | undefined;
  outputTokens: number | undefined;
  /** text that the next turn of a conversation has behind this prompt; undefined: not known, or not to be repeated */
  answer: Buffer | undefined;
}

/** A request at its end, as far as the view learns from it. */
export interface CacheOutcome extends SequenceEnd {
  /** tokens that the engine found cached; undefined: not reported */
  cachedTokens: number | undefined;
  /** the request as it went to the engine, to ask for its exact tokens; undefined: not to be asked */
  source: ProbeSource | undefined;
}
