/**
 * What vLLM publishes about its KV cache, in the order it happens. Hashes are the engine's own chained numbers
 * (`block-hash.ts`); `extraKeys` has one entry a block: LoRA name and, on the first block only, the cache salt.
 */
export type KvEvent =
  | {
      type: 'stored';
      hashes: number[];
      parent: number | null;
      tokenIds: number[];
      lora: string | null;
      extraKeys: (string[] | null)[];
    }
  | { type: 'removed'; hash: number }
  | { type: 'cleared' };
