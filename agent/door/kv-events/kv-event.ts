/**
 * What an engine says about its KV cache, as the agent reads it off vLLM's event stream
 * (vllm/distributed/kv_events.py): validated, with the two shapes of the wire (array and map) and the two of a hash
 * (integer and digest) brought to one.
 *
 * A hash is the low 53 bits of the engine's own: opaque, the same for the same block in all events of one engine.
 */
export type KvEvent = BlocksStored | BlocksRemoved | AllBlocksCleared;

/** Blocks became hittable: a run of them, each following the one before it. */
export interface BlocksStored {
  type: 'stored';
  hashes: readonly number[];
  /** the block before the first of them; undefined: they begin a sequence */
  parent: number | undefined;
  /** tokens of all blocks, in order */
  tokenIds: readonly number[];
  /** tokens in one block */
  blockSize: number;
  loraName: string | undefined;
  /** one entry a block (cache salt, LoRA name, digests of images); undefined: the engine does not tell */
  extraKeys: readonly (readonly unknown[] | null)[] | undefined;
  /** where the blocks are: `GPU`, or a second tier such as `CPU` or `STORAGE` */
  medium: string;
  /** KV cache group of a hybrid model; 0 where there is one only */
  group: number;
  /** kind of attention of the group, such as `full_attention`; undefined: not told */
  specKind: string | undefined;
}

/** One physical copy of each of these blocks is gone; another may be left. */
export interface BlocksRemoved {
  type: 'removed';
  hashes: readonly number[];
  medium: string;
  group: number;
}

export interface AllBlocksCleared {
  type: 'cleared';
}

/** Who hears an engine's events. Called in the order of the engine's sequence; never concurrently. */
export interface KvEventSink {
  /**
   * A new history begins, and all that was heard before is void: at the first batch, after an engine restart, after a
   * gap that could not be filled. `complete`: it begins with the engine's own first event, so whatever is not in it is
   * not cached.
   */
  begin(complete: boolean): void;
  /** Events of one scheduler step, in order. */
  apply(events: readonly KvEvent[]): void;
  /** The stream cannot be followed any more (`problem` says why and what to do): the view falls back until `begin`. */
  fail(problem: string): void;
}
