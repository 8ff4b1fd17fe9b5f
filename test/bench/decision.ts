import { Decider } from '../../agent/entry/decide.ts';
import { Instances } from '../../agent/entry/instances.ts';
import { Snapshots } from '../../agent/entry/snapshot.ts';
import { TableState } from '../../agent/entry/table-state.ts';
import { defaultConfig } from '../../shared/config/index.ts';
import { realClock, seededRng, silentLog } from '../../shared/env.ts';
import { FEATURE_COUNT, FEATURE_SCHEMA } from '../../shared/features.ts';
import { HEAD_COUNT, type ResidualNet } from '../../shared/predictor/net.ts';
import { GENERIC_LAW } from '../../shared/predictor/step-law.ts';
import { packNet, type RoutingTable } from '../../shared/table.ts';
import { reportOf, requestOf } from '../helpers/reports.ts';
import { type Figure, quantileOf } from './figure.ts';

const ROUNDS = 4000;
const WARM_UP = 1000;
const PROMPT_BLOCKS = 64;

/**
 * One decision (snapshot with prefix lookup, features, prior, net, choice) with a trained-size net, in microseconds.
 */
export function decisionFigures(): Figure[] {
  return [8, 64].flatMap((n) => {
    const samples = measure(n);
    const target = n === 8 ? 50 : 200;
    return [
      {
        name: `decision, ${n} instances, p50`,
        value: quantileOf(samples, 0.5),
        unit: 'µs',
        target: `<= ${target} µs`,
        ok: quantileOf(samples, 0.5) <= target,
      },
      { name: `decision, ${n} instances, p99`, value: quantileOf(samples, 0.99), unit: 'µs' },
    ];
  });
}

function measure(n: number): number[] {
  const rng = seededRng(n);
  const env = { clock: realClock, rng, log: silentLog };
  const config = defaultConfig('0123456789abcdef').agent;
  const tables = new TableState(config, env);
  tables.apply(tableWith(randomNet(rng)));
  const instances = new Instances(realClock, config, 'bench', 1, []);
  const hashes = Float64Array.from({ length: PROMPT_BLOCKS }, (_, i) => 1e9 + i);
  for (let i = 0; i < n; i++) {
    const id = `i${i}`;
    instances.applyReport(
      reportOf(
        id,
        { seq: 1 },
        { inFlight: i % 20, decoding: i % 16, prefilling: i % 4, pendingTokens: 500 * (i % 4), usedTokens: 20_000 },
      ),
    );
    for (let block = 0; block < (i * 7) % PROMPT_BLOCKS; block++) instances.index.add(id, hashes[block] as number);
    const view = instances.views.get(id);
    view?.reservations.push({ seq: 1e6, promptTokens: 1000, ownTokens: 700 });
  }
  const snapshots = new Snapshots(instances);
  const decider = new Decider(tables, env);
  const request = requestOf(2048);
  const none = new Set<string>();
  const samples: number[] = [];
  for (let round = 0; round < ROUNDS + WARM_UP; round++) {
    const startMs = performance.now();
    const snapshot = snapshots.take({ request, nowMs: realClock.nowMs(), staleAfterMs: 1e9 }, hashes, 32, none);
    const decision = decider.decide(request, snapshot);
    const tookMs = performance.now() - startMs;
    if (decision.policy !== 'learned') throw new Error('the bench must measure the learned policy');
    if (round >= WARM_UP) samples.push(tookMs * 1000);
  }
  return samples;
}

function randomNet(rng: () => number): ResidualNet {
  const widths = [FEATURE_COUNT, 64, 64, HEAD_COUNT];
  return {
    shift: new Float32Array(FEATURE_COUNT),
    scale: new Float32Array(FEATURE_COUNT).fill(0.3),
    layers: widths.slice(1).map((outputs, i) => {
      const inputs = widths[i] as number;
      return {
        inputs,
        outputs,
        weights: Float32Array.from({ length: inputs * outputs }, () => (rng() - 0.5) / Math.sqrt(inputs)),
        bias: new Float32Array(outputs),
      };
    }),
  };
}

function tableWith(net: ResidualNet): RoutingTable {
  return {
    version: 1,
    atWallMs: realClock.wallMs(),
    featureSchema: FEATURE_SCHEMA,
    roster: [],
    policy: 'learned',
    objective: 'ttft',
    weights: { queue: 0.25, busy: 1, decode: 0.03, paceTokens: 200, kv: 1, block: 1.2 },
    exploration: 0.01,
    net: packNet(net),
    p90Factor: { ttft: 2, tpot: 1.5 },
    laws: { fleet: GENERIC_LAW, kinds: {} },
    meanOutputTokens: { fleet: 200, models: {} },
    bytesPerToken: {},
    trust: {
      verdict: 'trusted',
      reason: 'bench',
      samples: 100,
      medianApe: 0.2,
      p90Coverage: 0.9,
      regimes: { idle: 'trusted', queued: 'trusted', full: 'trusted' },
    },
  };
}
