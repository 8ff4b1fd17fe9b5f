import { z } from 'zod';
import { CACHE_SOURCES } from '../shared/instance.ts';

/** What `lodestar status` reads of an agent's status page. */
export const agentStatus = z.object({
  agent: z.string(),
  version: z.string(),
  draining: z.boolean(),
  inFlight: z.number(),
  brain: z.object({ url: z.string(), connected: z.boolean(), lastError: z.string().optional() }),
  routing: z.object({
    policy: z.string(),
    reason: z.string(),
    objective: z.string(),
    tableVersion: z.number().nullable(),
    tableAgeMs: z.number().nullable(),
  }),
  cacheIndexBlocks: z.number(),
  instances: z.array(
    z.object({
      instance: z.string(),
      health: z.string(),
      draining: z.boolean(),
      breaker: z.string(),
      ageMs: z.number().nullable(),
      linkMs: z.number(),
      kind: z.string().nullable(),
      cachedBlocks: z.number(),
      limits: z.object({ kvTokens: z.number() }).nullable(),
      ledger: z.object({ inFlight: z.number(), waiting: z.number(), usedTokens: z.number() }).nullable(),
      cache: z
        .object({
          source: z.enum(CACHE_SOURCES),
          problem: z.string(),
          blocks: z.number(),
          offloadedBlocks: z.number(),
          hitRatio: z.number(),
          accuracyRatio: z.number(),
          checked: z.number(),
        })
        .nullable(),
    }),
  ),
});

/** An agent's status page, as far as the command reads it. */
export type StatusPage = z.infer<typeof agentStatus>;
