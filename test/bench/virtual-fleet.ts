import { decodeStepMs, prefillWorkMs } from '../../shared/predictor/step-law.ts';
import type { PolicyName } from '../../shared/choice/policies/index.ts';
import { findGpu, type GpuProfile, loadGpus } from '../../sim/engine/gpus.ts';
import { bundledTrace, type LoadResult, pace, planRequests, readMooncake, runLoad } from '../../sim/workloads/index.ts';
import { MODEL, TestFleet } from '../helpers/fleet.ts';
import type { Figure } from './figure.ts';

/** The demo's fleet: emulated GPUs of three kinds. */
const GPUS = ['A30', 'A30', 'L20', 'A100'];
const LENGTH_SCALE = 0.125;
const STEP_MS = 2;
/** Batches at which a law is judged: decodes (sequences, context tokens) and prefill chunks over nothing cached. */
const DECODES = [
  [1, 500],
  [8, 8000],
  [16, 16_000],
  [32, 24_000],
] as const;
const CHUNKS = [256, 512, 1024, 2048] as const;

interface Run {
  result: LoadResult;
  /** virtual ms from the first request to the first trusted table; undefined: not within the run */
  trustedAfterMs: number | undefined;
  /** largest relative error of a step time by an instance's law, over DECODES and CHUNKS */
  lawError: number;
}

/**
 * Agents, brain and emulated engines on virtual time under a trace: figures that do not depend on this machine's speed.
 */
async function run(rate: number, seconds: number, policy: PolicyName | undefined): Promise<Run> {
  const fleet = new TestFleet();
  try {
    const catalogue = loadGpus();
    const gpus = GPUS.map((key) => findGpu(catalogue, key));
    await fleet.startBrain();
    for (const [i, gpu] of gpus.entries()) {
      const engine = await fleet.startEngine(0, gpu);
      await fleet.startAgent(
        `a${i}`,
        [{ url: engine.url, kind: { gpu: gpu.key } }],
        policy ? { 'agent.policy': policy } : {},
      );
    }
    await fleet.ready(gpus.length);
    return await drive(fleet, gpus, rate, seconds);
  } finally {
    await fleet.stop();
  }
}

async function drive(fleet: TestFleet, gpus: readonly GpuProfile[], rate: number, seconds: number): Promise<Run> {
  const agents = [...fleet.agents.values()];
  const trace = pace(readMooncake(bundledTrace, { seed: 1, lengthScale: LENGTH_SCALE, outputScale: 0.25 }).requests, {
    rate,
  });
  const requests = planRequests(
    trace.filter((one) => one.arrivalMs < seconds * 1000),
    LENGTH_SCALE,
  );
  const state = { done: false };
  const startMs = fleet.clock.nowMs();
  const load = runLoad({
    urls: agents.map((agent) => `http://127.0.0.1:${agent.port}`),
    requests,
    api: 'completions',
    model: MODEL,
    clock: fleet.clock,
  }).finally(() => (state.done = true));
  let trustedAfterMs: number | undefined;
  let lawError: number | undefined;
  while (!state.done) {
    await fleet.advance(20, STEP_MS);
    const afterMs = fleet.clock.nowMs() - startMs;
    if (trustedAfterMs === undefined && agents.some((agent) => agent.context.tables.table?.trust.verdict === 'trusted'))
      trustedAfterMs = afterMs;
    if (lawError === undefined && afterMs >= 30_000) lawError = worstLawError(fleet, gpus);
  }
  return { result: await load, trustedAfterMs, lawError: lawError ?? NaN };
}

function worstLawError(fleet: TestFleet, gpus: readonly GpuProfile[]): number {
  let worst = 0;
  [...fleet.agents.values()].forEach((agent, i) => {
    agent.context.instances.readLocal(false);
    const law = [...agent.context.instances.views.values()].find((view) => view.local)?.report?.law;
    const gpu = gpus[i];
    if (!law || !gpu) return;
    const truth = { ...gpu, c5: gpu.c5 ?? 0, t0: gpu.T0 ?? 0 };
    for (const [n, context] of DECODES)
      worst = Math.max(worst, Math.abs(decodeStepMs(law, n, context) / decodeStepMs(truth, n, context) - 1));
    for (const tokens of CHUNKS)
      worst = Math.max(
        worst,
        Math.abs((law.c0 + prefillWorkMs(law, tokens, 0, 0)) / (truth.c0 + prefillWorkMs(truth, tokens, 0, 0)) - 1),
      );
  });
  return worst;
}

/** How fast a cold fleet learns at 5 requests/s. */
export async function coldStartFigures(): Promise<Figure[]> {
  const { trustedAfterMs, lawError } = await run(5, 32, undefined);
  const seconds = (trustedAfterMs ?? Infinity) / 1000;
  return [
    {
      name: 'cold brain to first trusted table, 5 requests/s',
      value: seconds,
      unit: 's',
      target: '<= 30 s',
      ok: seconds <= 30,
    },
    {
      name: 'step-time law after 30 s, largest error of 32 steps',
      value: lawError * 100,
      unit: '%',
      target: '<= 10 %',
      ok: lawError <= 0.1,
    },
  ];
}

/**
 * The demo's load on virtual time, each policy from cold: what routing alone is worth, without this machine's noise.
 */
export async function mixedFleetFigures(): Promise<Figure[]> {
  const figures: Figure[] = [];
  const learned = (await run(10, 65, undefined)).result;
  figures.push(
    { name: 'learned from cold, mean TTFT', value: learned.ttftMs.mean ?? NaN, unit: 'ms' },
    { name: 'learned from cold, p99 TTFT', value: learned.ttftMs.p99 ?? NaN, unit: 'ms' },
  );
  for (const policy of ['prefix-load', 'lmetric', 'least-request'] as const) {
    const other = (await run(10, 65, policy)).result;
    const ratio = (pick: (result: LoadResult) => number | null | undefined): number =>
      (pick(other) ?? NaN) / (pick(learned) ?? NaN);
    figures.push(
      { name: `${policy} / learned, mean TTFT`, value: ratio((one) => one.ttftMs.mean), unit: 'x' },
      { name: `${policy} / learned, p99 TTFT`, value: ratio((one) => one.ttftMs.p99), unit: 'x' },
      { name: `${policy} / learned, mean E2E`, value: ratio((one) => one.e2eMs.mean), unit: 'x' },
    );
  }
  return figures;
}
