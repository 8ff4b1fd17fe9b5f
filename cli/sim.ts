import { Option, type Command } from 'commander';
import { OBJECTIVE_NAMES, type ObjectiveName } from '../shared/choice/objectives/index.ts';
import { POLICY_NAMES } from '../shared/choice/policies/index.ts';
import { LodestarError } from '../shared/errors.ts';
import { packageVersion } from '../shared/package-root.ts';
import { CACHE_SOURCES, type CacheSourceName } from '../sim/fleet/cache-source.ts';
import { type Cluster, readCluster } from '../sim/fleet/cluster.ts';
import { type ClusterSummary, summarizeCluster } from '../sim/fleet/cluster-summary.ts';
import { simPage } from '../sim/fleet/html.ts';
import type { RunDone, RunJob } from '../sim/fleet/job.ts';
import { runRuns } from '../sim/fleet/jobs.ts';
import { DEFAULT_SLO, type RunResult } from '../sim/fleet/result.ts';
import type { SimPolicy } from '../sim/fleet/run.ts';
import type { Dropped, TraceSpec } from '../sim/fleet/scenario.ts';
import { type PolicySummary, summarizeRuns } from '../sim/fleet/summary.ts';
import { TRACE_FORMATS, type TraceFormatName } from '../sim/workloads/index.ts';
import { entryCount, notNegative, oneOfEach, positive, whole, wholes } from './flag-values.ts';
import { sayErrors, showProgress, writeJson, writeText } from './sim-output.ts';
import { policyTable } from './sim-report.ts';
import { addSimMatrix } from './sim-matrix.ts';

/** Every policy that can be simulated. */
const SIM_POLICIES: readonly SimPolicy[] = [...POLICY_NAMES, 'oracle'];

/** Flags of `lodestar sim`, parsed. */
export interface SimFlags {
  cluster?: string;
  trace?: string;
  format?: TraceFormatName;
  rateScale?: number;
  rps?: number;
  lengthScale: number;
  outputScale: number;
  maxPrompt?: number;
  maxRequests?: number;
  start: number;
  duration?: number;
  warmup: number;
  policies: SimPolicy[];
  entries: number;
  seeds: number[];
  objective: ObjectiveName;
  sloTtftMs?: number;
  sloTpotMs?: number;
  json?: string;
  cacheView: CacheSourceName;
  html?: string;
  jobs: number;
  quiet?: boolean;
}

/** What `--json` holds: the same flags and seeds give the same bytes. */
export interface SimOutput {
  meta: {
    version: string;
    options: object;
    cluster: ClusterSummary;
    trace: TraceSpec;
    /** by the first seed */
    dropped: Dropped;
    offeredRps: number;
  };
  runs: RunResult[];
  summary: Record<string, PolicySummary>;
}

/** `lodestar sim`: policies over a trace on a simulated cluster, in virtual time; and `lodestar sim matrix`. */
export function addSim(program: Command): void {
  // `matrix` has flags of the same names, which would else be taken for those of `sim`.
  const sim = program
    .enablePositionalOptions()
    .command('sim')
    .description('simulate routing policies on a cluster and a trace, in virtual time')
    .enablePositionalOptions()
    .option('--cluster <file>', 'cluster to simulate, YAML or JSON')
    .option('--trace <file>', 'trace: a file, an archive, a folder, or synthetic:KIND')
    .addOption(new Option('--format <name>', 'its format, where the content does not tell').choices(TRACE_FORMATS))
    .addOption(
      new Option('--rate-scale <x>', "multiple of the trace's own pace (default 1)")
        .argParser(positive)
        .conflicts('rps'),
    )
    .addOption(new Option('--rps <x>', 'mean requests a second').argParser(positive))
    .option('--length-scale <x>', 'prompt lengths relative to the trace', positive, 1)
    .option('--output-scale <x>', 'answer lengths relative to the trace', positive, 1)
    .option('--max-prompt <tokens>', 'leave out longer prompts (after scaling)', positive)
    .option('--max-requests <n>', 'take so many requests at most', whole)
    .option('--start <seconds>', 'begin of the span of the trace', notNegative, 0)
    .option('--duration <seconds>', 'length of that span, at the pace of the trace', positive)
    .option('--warmup <seconds>', 'what arrives before is left out of `afterWarmup`', notNegative, 30)
    .option('--policies <names>', `by commas: ${SIM_POLICIES.join(', ')}`, oneOfEach(SIM_POLICIES), [
      'learned',
      'prefix-load',
      'lmetric',
    ])
    .option('--entries <n>', 'entries that share the traffic, at most 256', entryCount, 1)
    .option('--seeds <numbers>', 'by commas; each policy sees the same draws', wholes, [1])
    .addOption(
      new Option('--objective <name>', 'what the learned policy makes small').choices(OBJECTIVE_NAMES).default('ttft'),
    )
    .option(
      '--slo-ttft-ms <ms>',
      `SLO that goodput counts against; sent with each request where given or if goodput is the objective (default: ${DEFAULT_SLO.ttftMs})`,
      positive,
    )
    .option('--slo-tpot-ms <ms>', `the same for time per output token (default: ${DEFAULT_SLO.tpotMs})`, positive)
    .addOption(
      new Option(
        '--cache-view <source>',
        "what doors know of their engines' caches: neither size nor events, the size, or every event",
      )
        .choices(CACHE_SOURCES)
        .default('shadow'),
    )
    .option('--json <file>', 'write the figures there as JSON; - is standard output')
    .option('--html <file>', 'write a page with plots there')
    .option('--jobs <n>', 'threads', whole, 1)
    .option('--quiet', 'no progress and no table')
    .action(async (flags: SimFlags) => {
      process.exitCode = await sayErrors(() => simulate(flags));
    });
  addSimMatrix(sim, SIM_POLICIES);
}

async function simulate(flags: SimFlags): Promise<void> {
  if (flags.cluster === undefined)
    throw new LodestarError('CONFIG_INVALID', '--cluster FILE is needed: which instances to simulate');
  if (flags.trace === undefined)
    throw new LodestarError(
      'CONFIG_INVALID',
      '--trace FILE is needed: which requests arrive; synthetic:shared-prompts needs no file',
    );
  const cluster = readCluster(flags.cluster);
  const trace = traceOf(flags, flags.trace);
  const jobs = flags.seeds.flatMap((seed) =>
    flags.policies.map((policy) => jobOf(flags, cluster, trace, policy, seed)),
  );
  const done = await runRuns(jobs, { threads: flags.jobs, ...(flags.quiet ? {} : { onDone: showProgress }) });
  if (!flags.quiet && process.stderr.isTTY) process.stderr.write('\r\u001b[K');
  const output = outputOf(flags, cluster, trace, done);
  const { dropped, offeredRps } = output.meta;
  if (!flags.quiet) {
    const left = dropped.aboveMaxPrompt + dropped.heldByNone;
    const head = `${output.runs[0]?.requests} requests at ${offeredRps.toFixed(2)}/s on ${cluster.instances.length} instances, ${cluster.stepLaw} step law; ${left} left out as too long; ms, means over ${flags.seeds.length} seed${flags.seeds.length === 1 ? '' : 's'}`;
    // With the figures on standard output, the table goes beside them.
    (flags.json === '-' ? process.stderr : process.stdout).write(`${head}\n${policyTable(output.summary)}\n`);
  }
  if (flags.json !== undefined) writeJson(flags.json, output);
  if (flags.html !== undefined)
    writeText(flags.html, simPage({ facts: factsOf(flags, output), summary: output.summary, runs: done }));
}

function factsOf(
  flags: SimFlags,
  { meta: { cluster, dropped, offeredRps, version }, runs }: SimOutput,
): [string, string][] {
  const gpus = cluster.instances.map((one) => one.gpu);
  return [
    [
      'Cluster',
      `${flags.cluster}: ${[...new Set(gpus)].map((gpu) => `${gpus.filter((other) => other === gpu).length} × ${gpu}`).join(', ')}; ${cluster.stepLaw} step law`,
    ],
    ...cluster.events.map(({ atS, kind, instance }): [string, string] => [
      'Event',
      `${kind} of i${instance} at ${atS} s`,
    ]),
    [
      'Trace',
      `${flags.trace}: ${runs[0]?.requests} requests at ${offeredRps.toFixed(2)}/s, prompts × ${flags.lengthScale}, answers × ${flags.outputScale}`,
    ],
    ['Left out', `${dropped.aboveMaxPrompt + dropped.heldByNone} requests as too long`],
    [
      'Runs',
      `${flags.entries} ${flags.entries === 1 ? 'entry' : 'entries'}, objective ${flags.objective}, seeds ${flags.seeds.join(', ')}; the plots show seed ${flags.seeds[0]}, the table means over all`,
    ],
    ['Version', version],
  ];
}

function traceOf(flags: SimFlags, file: string): TraceSpec {
  return {
    file,
    format: flags.format,
    lengthScale: flags.lengthScale,
    outputScale: flags.outputScale,
    startS: flags.start,
    durationS: flags.duration,
    maxPromptTokens: flags.maxPrompt,
    maxRequests: flags.maxRequests,
    pace: flags.rps === undefined ? { speed: flags.rateScale ?? 1 } : { rate: flags.rps },
  };
}

function jobOf(flags: SimFlags, cluster: Cluster, trace: TraceSpec, policy: SimPolicy, seed: number): RunJob {
  const { entries, objective, warmup: warmupS, html, cacheView: cacheSource } = flags;
  const standard = objective === 'goodput' ? DEFAULT_SLO : { ttftMs: undefined, tpotMs: undefined };
  const { sloTtftMs = standard.ttftMs, sloTpotMs = standard.tpotMs } = flags;
  const sendSlo = sloTtftMs !== undefined || sloTpotMs !== undefined;
  return {
    kind: 'run',
    cluster,
    trace,
    policy,
    seed,
    entries,
    objective,
    sloTtftMs,
    sloTpotMs,
    sendSlo,
    warmupS,
    plots: html !== undefined && seed === flags.seeds[0],
    cacheSource,
  };
}

function outputOf(flags: SimFlags, cluster: Cluster, trace: TraceSpec, done: readonly RunDone[]): SimOutput {
  const runs = done.map(({ result }) => result);
  const { json: _json, html: _html, jobs: _jobs, quiet: _quiet, ...options } = flags;
  const { dropped, offeredRps } = done[0] as RunDone;
  return {
    meta: { version: packageVersion, options, cluster: summarizeCluster(cluster), trace, dropped, offeredRps },
    runs,
    summary: summarizeRuns(runs),
  };
}
