import type { PrefixNode } from './prefix-tree.ts';
import type { Sequence } from './sequence.ts';

/** One KV block of an engine as its events tell of it. */
export interface EngineBlock {
  readonly hash: number;
  readonly parent: EngineBlock | undefined;
  /** blocks before it in its sequence; −1: one of them was never heard of */
  readonly index: number;
  /** physical copies that the engine holds */
  copies: number;
  /** blocks that follow it */
  children: number;
  /** the prefix blocks that it ends in: more than one where prompts part inside a prefix block; none: not known yet whose text it is */
  readonly nodes: Set<PrefixNode>;
  /** the request in flight that brought it or found it last */
  sequence: Sequence | undefined;
}
