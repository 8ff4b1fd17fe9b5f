import type { Guard } from './guard.ts';

/** The estimate of a prompt's tokens may be off by this much before an instance is ruled out by it. */
const TOLERANCE = 1.2;

/**
 * The prompt can fit the instance's context and KV cache at all: on a mixed fleet a long prompt has fewer places to go.
 */
export const fits: Guard = {
  name: 'fits',
  describe: 'the prompt fits the instance',
  yields: 'soft',
  allows: (view, { request }) => {
    const limits = view.report?.limits;
    if (!limits) return false;
    const room = limits.maxModelLen > 0 ? Math.min(limits.maxModelLen, limits.kvTokens) : limits.kvTokens;
    // An engine wants room for at least one token of the answer.
    return request.exactTokens ? request.promptTokens < room : request.promptTokens <= room * TOLERANCE;
  },
};
