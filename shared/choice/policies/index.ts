import { cacheAware } from './cache-aware.ts';
import { dynamo } from './dynamo.ts';
import { learned } from './learned.ts';
import { leastLoad } from './least-load.ts';
import { leastRequest } from './least-request.ts';
import { llmD } from './llm-d.ts';
import { lmetric } from './lmetric.ts';
import { llmDLatency } from './llm-d-latency.ts';
import { lodestarPaper } from './lodestar-paper.ts';
import { mooncake } from './mooncake.ts';
import type { PolicyKind } from './policy.ts';
import { powerOfTwo } from './power-of-two.ts';
import { preble } from './preble.ts';
import { prefixLoad } from './prefix-load.ts';
import { prequal } from './prequal.ts';
import { random } from './random.ts';
import { roundRobin } from './round-robin.ts';
import { smetric } from './smetric.ts';
import { tokenAware } from './token-aware.ts';

export const policies = {
  learned,
  'round-robin': roundRobin,
  random,
  'least-request': leastRequest,
  'prefix-load': prefixLoad,
  lmetric,
  'llm-d': llmD,
  'power-of-two': powerOfTwo,
  prequal,
  'cache-aware': cacheAware,
  'least-load': leastLoad,
  'token-aware': tokenAware,
  dynamo,
  smetric,
  preble,
  mooncake,
  'lodestar-paper': lodestarPaper,
  'llm-d-latency': llmDLatency,
} as const satisfies Record<string, PolicyKind>;

/**
 * What routes where predictions are shown to be wrong. Its inputs are counts, none is learned; of such policies it is
 * the best on most fleets (docs/evaluation.md).
 */
export const FALLBACK_POLICY = 'lmetric' satisfies keyof typeof policies;

export type PolicyName = keyof typeof policies;
export const POLICY_NAMES = Object.keys(policies) as [PolicyName, ...PolicyName[]];
