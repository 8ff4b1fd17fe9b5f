import type { Outcome, Sample } from '../../shared/sample.ts';
import { FEATURE_COUNT } from '../../shared/features.ts';

/** A valid sample of a served request. */
export function sampleOf(changes: Partial<Sample> = {}, outcome: Partial<Outcome> = {}): Sample {
  return {
    instance: 'i',
    kind: 'k',
    model: 'm',
    atWallMs: 1_700_000_000_000,
    row: new Uint8Array(FEATURE_COUNT * 4),
    priorTtftMs: 100,
    priorTpotMs: 20,
    predictedTtftMs: 100,
    predictedTtftP90Ms: 200,
    regime: 'idle',
    policy: 'learned',
    reason: 'trusted',
    propensity: 1,
    tableVersion: 1,
    stream: true,
    promptBytes: 400,
    promptTokens: 100,
    hitTokens: 0,
    outcome: {
      status: 'ok',
      ttftMs: 110,
      tpotMs: 21,
      e2eMs: 500,
      outputTokens: 20,
      promptTokens: 100,
      cachedTokens: 0,
      ...outcome,
    },
    ...changes,
  };
}
