import type { Rng } from '../../shared/env.ts';
import { FEATURE_COUNT, FEATURE_SCHEMA } from '../../shared/features.ts';
import { HEAD_COUNT, type ResidualNet } from '../../shared/predictor/net.ts';
import { GENERIC_LAW } from '../../shared/predictor/step-law.ts';
import type { RoutingTable, Trust } from '../../shared/table.ts';

export function trustOf(verdict: Trust['verdict'], changes: Partial<Trust> = {}): Trust {
  return {
    verdict,
    reason: 'test',
    samples: 100,
    medianApe: 0.1,
    p90Coverage: 0.9,
    regimes: { idle: 'unknown', queued: 'unknown', full: 'unknown' },
    ...changes,
  };
}

/** A table of a fleet without a net, routed by `learned` and trusted, with what the test changes. */
export function tableOf(changes: Partial<RoutingTable> = {}): RoutingTable {
  return {
    version: 7,
    atWallMs: 1_700_000_000_000,
    featureSchema: FEATURE_SCHEMA,
    roster: [],
    policy: 'learned',
    objective: 'ttft',
    weights: { queue: 0.25, busy: 1, decode: 0.03, paceTokens: 200, kv: 1, block: 1.2 },
    exploration: 0,
    net: null,
    p90Factor: { ttft: 2, tpot: 1.5 },
    laws: { fleet: { ...GENERIC_LAW }, kinds: {} },
    meanOutputTokens: { fleet: 200, models: {} },
    bytesPerToken: { m: 4 },
    trust: trustOf('trusted'),
    ...changes,
  };
}

/** A net with random weights of about the size that training gives. */
export function randomNet(rng: Rng, hidden: readonly number[]): ResidualNet {
  const widths = [FEATURE_COUNT, ...hidden, HEAD_COUNT];
  const floats = (n: number, size: number): Float32Array =>
    Float32Array.from({ length: n }, () => (rng() * 2 - 1) * size);
  return {
    shift: floats(FEATURE_COUNT, 1),
    scale: Float32Array.from({ length: FEATURE_COUNT }, () => 0.2 + rng()),
    layers: widths.slice(1).map((outputs, i) => {
      const inputs = widths[i] as number;
      return { inputs, outputs, weights: floats(inputs * outputs, Math.sqrt(3 / inputs)), bias: floats(outputs, 0.1) };
    }),
  };
}
