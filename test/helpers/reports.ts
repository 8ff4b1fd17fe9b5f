import { type CandidateState, candidateOf, type RoutingRequest } from '../../shared/candidate.ts';
import type { InstanceReport, LedgerTotals } from '../../shared/instance.ts';
import { GENERIC_LAW } from '../../shared/predictor/step-law.ts';

/** A report of an idle, healthy instance, with what the test changes. */
export function reportOf(
  instance: string,
  changes: Partial<InstanceReport> = {},
  ledger: Partial<LedgerTotals> = {},
): InstanceReport {
  return {
    instance,
    agent: `agent-of-${instance}`,
    doorUrl: 'http://127.0.0.1:1',
    incarnation: 1,
    seq: 1,
    ageMs: 0,
    health: 'up',
    draining: false,
    models: ['m'],
    kind: 'm|-|gpux1|1',
    limits: { kvTokens: 40_000, blockTokens: 16, maxNumSeqs: 256, maxBatchedTokens: 2048, maxModelLen: 32_768 },
    ledger: {
      inFlight: 0,
      waiting: 0,
      prefilling: 0,
      decoding: 0,
      pendingTokens: 0,
      waitingTokens: 0,
      pendingPromptTokens: 0,
      decodeContextTokens: 0,
      usedTokens: 0,
      workRatio: 0,
      meanOutputTokens: 200,
      stepAgeMs: -1,
      ...ledger,
    },
    law: { ...GENERIC_LAW },
    cache: { source: 'shadow', problem: '', blocks: 0, offloadedBlocks: 0, hitRatio: 0, accuracyRatio: 0, checked: 0 },
    engine: null,
    gpu: null,
    host: null,
    seen: [],
    ...changes,
  };
}

/** A request of `promptTokens`, streamed, for the model that `reportOf` serves. */
export function requestOf(promptTokens: number, changes: Partial<RoutingRequest> = {}): RoutingRequest {
  return {
    model: 'm',
    promptTokens,
    textTokens: promptTokens,
    exactTokens: false,
    maxTokens: 0,
    outputTokens: 200,
    stream: true,
    sloTtftMs: undefined,
    sloTpotMs: undefined,
    priority: 0,
    sequences: 1,
    ...changes,
  };
}

/** A candidate with the given ledger and cached prefix. */
export function candidateWith(instance: string, ledger: Partial<LedgerTotals> = {}, hitTokens = 0): CandidateState {
  const candidate = candidateOf(reportOf(instance, {}, ledger));
  candidate.hitTokens = hitTokens;
  return candidate;
}
