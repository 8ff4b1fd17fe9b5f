import type { KvEvent } from '../../agent/door/kv-events/kv-event.ts';
import type { KvEvent as EngineEvent } from '../engine/kv-events.ts';
import { ENGINE_BLOCK_TOKENS } from './plan.ts';

/**
 * What the simulated doors know of their engines' caches: `estimate`: neither size nor events; `shadow`: the size, as
 * vLLM's metrics tell it; `exact`: every event, as vLLM publishes them.
 */
export const CACHE_SOURCES = ['estimate', 'shadow', 'exact'] as const;
export type CacheSourceName = (typeof CACHE_SOURCES)[number];

/** An emulated engine's events as the agent would have read them off the wire; the hashes stay as they are. */
export function agentEvents(events: readonly EngineEvent[]): KvEvent[] {
  return events.map((event): KvEvent => {
    if (event.type === 'cleared') return event;
    if (event.type === 'removed') return { type: 'removed', hashes: [event.hash], medium: 'GPU', group: 0 };
    const { hashes, parent, tokenIds, lora, extraKeys } = event;
    return {
      type: 'stored',
      hashes,
      parent: parent ?? undefined,
      tokenIds,
      blockSize: ENGINE_BLOCK_TOKENS,
      loraName: lora ?? undefined,
      extraKeys,
      medium: 'GPU',
      group: 0,
      specKind: 'full_attention',
    };
  });
}
