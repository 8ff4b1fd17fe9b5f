import { join } from 'node:path';
import { seededRng } from '../../../shared/env.ts';
import { packageRoot } from '../../../shared/package-root.ts';
import { type Cluster, parseCluster } from '../../../sim/fleet/cluster.ts';
import { type SimRequest, simRequest } from '../../../sim/fleet/plan.ts';
import { pace, readTrace, simPrompt } from '../../../sim/workloads/index.ts';

/** A fleet and its load, from which samples are collected. */
export interface Cell {
  name: string;
  cluster: Cluster;
  requests: SimRequest[];
  /** spans in which another tenant's work runs on an instance's GPU, ms from the start of traffic */
  tenants: { instance: number; fromMs: number; toMs: number; factor: number }[];
}

interface CellPlan {
  name: string;
  gpus: Record<string, number>;
  trace: string;
  lengthScale: number;
  outputScale: number;
  rate: number;
  count: number;
  /** instance 0 is throttled to half its speed from the middle on */
  throttled?: boolean;
  /** instances 0 and 1 share their GPUs with a tenant that comes and goes */
  shared?: boolean;
}

const MIXED = { A30: 4, L20: 2, A100: 2 };
const CONVERSATION = 'mooncake-conversation-first10min.jsonl.gz';
/** Traces as short as the bundled ones are repeated, each time with other tokens. */
const PLANS: readonly CellPlan[] = [
  {
    name: 'mixed kinds, low load',
    gpus: MIXED,
    trace: CONVERSATION,
    lengthScale: 0.125,
    outputScale: 0.5,
    rate: 5,
    count: 3000,
  },
  {
    name: 'mixed kinds, high load',
    gpus: MIXED,
    trace: CONVERSATION,
    lengthScale: 0.125,
    outputScale: 0.5,
    rate: 26,
    count: 5000,
  },
  {
    name: 'one throttled 2x half-way',
    gpus: { A30: 4 },
    trace: 'synthetic:shared-prompts',
    lengthScale: 0.5,
    outputScale: 1,
    rate: 11,
    count: 3500,
    throttled: true,
  },
  {
    name: 'shared GPUs',
    gpus: { A30: 4, L20: 2 },
    trace: 'synthetic:agents',
    lengthScale: 1,
    outputScale: 1,
    rate: 9,
    count: 3500,
    shared: true,
  },
  {
    name: 'shared GPUs, high load',
    gpus: { A30: 6 },
    trace: 'azure-conv-2023-first4000.csv.gz',
    lengthScale: 1,
    outputScale: 0.5,
    rate: 17,
    count: 4000,
    shared: true,
  },
];

const TENANT_FACTOR = [1.4, 2.5] as const;
const TENANT_GAP_MS = 25_000;
const TENANT_STAY_MS = 15_000;
/** A pause between a trace and its repetition. */
const PAUSE_MS = 1000;

/** Every cell that the study looks at, ready to run; the same each time. */
export function cells(): Cell[] {
  return PLANS.map(makeCell);
}

function makeCell(plan: CellPlan): Cell {
  const requests = makeRequests(plan);
  const spanMs = requests.at(-1)?.arrivalMs ?? 0;
  const instances = Object.entries(plan.gpus).map(([gpu, count]) => ({
    gpu,
    count,
    maxNumSeqs: 256,
    maxBatchedTokens: 2048,
  }));
  const events = plan.throttled ? [{ atS: spanMs / 2000, kind: 'throttle', instance: 0, factor: 2 }] : [];
  const cluster = parseCluster(JSON.stringify({ instances, stepLaw: 'rough', events }), plan.name);
  return { name: plan.name, cluster, requests, tenants: plan.shared ? tenants(spanMs) : [] };
}

function makeRequests({ trace, lengthScale, outputScale, rate, count }: CellPlan): SimRequest[] {
  const file = trace.startsWith('synthetic:') ? trace : join(packageRoot, 'sim/data/traces', trace);
  const rows = readTrace(file, { seed: 1, lengthScale, outputScale, maxPromptTokens: 20_000 }).requests;
  const spanMs = (rows.at(-1)?.arrivalMs ?? 0) + PAUSE_MS;
  const repeated = Array.from({ length: count }, (_, i) => {
    const round = Math.floor(i / rows.length);
    const row = rows[i % rows.length]!;
    return { ...row, round, arrivalMs: row.arrivalMs + round * spanMs };
  });
  return pace(repeated, { rate }).map((row, i) =>
    simRequest(i, row.arrivalMs, simPrompt(row, 1 + row.round), row.outputTokens, row.client ?? ''),
  );
}

/** Visits of a tenant to two of the GPUs: exponential gaps and stays, a factor of its own each time. */
function tenants(spanMs: number): Cell['tenants'] {
  const rng = seededRng(11);
  const visits: Cell['tenants'] = [];
  for (const instance of [0, 1]) {
    for (let atMs = 0; atMs < spanMs;) {
      const fromMs = atMs - TENANT_GAP_MS * Math.log(1 - rng());
      const toMs = fromMs - TENANT_STAY_MS * Math.log(1 - rng());
      visits.push({ instance, fromMs, toMs, factor: TENANT_FACTOR[0] + (TENANT_FACTOR[1] - TENANT_FACTOR[0]) * rng() });
      atMs = toMs;
    }
  }
  return visits;
}
