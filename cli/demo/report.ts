import type { FleetNode } from './fleet.ts';
import type { PhaseResult } from './phases.ts';
import { ms, percent } from './text.ts';

const NAME_WIDTH = 18;
const COLUMN_WIDTH = 14;
/** Requests sent later than this (p99) or cores busier than this share: emulated step times were late too. */
const LATE_MS = 50;
const BUSY_RATIO = 0.85;

export interface Report {
  phases: readonly [PhaseResult, PhaseResult];
  nodes: readonly Pick<FleetNode, 'instance' | 'gpu'>[];
  /** Mean TTFT if each request had the fastest GPU for itself. */
  floorTtftMs: number;
  fastestGpu: string;
  trustedAfterMs: number | undefined;
}

/** The result of the demo: both phases side by side, where the requests went, and what bounds the gain. */
export function reportLines(report: Report): string[] {
  return [...latencyTable(report.phases), '', ...instanceTable(report), '', ...remarks(report)];
}

function latencyTable([before, after]: Report['phases']): string[] {
  const row = (name: string, ...cells: string[]): string =>
    name.padEnd(NAME_WIDTH) + cells.map((cell) => cell.padStart(COLUMN_WIDTH)).join('');
  const latency = (name: string, pick: (phase: PhaseResult) => number | undefined): string => {
    const [a, b] = [pick(before), pick(after)];
    return row(name, ms(a), ms(b), a !== undefined && b !== undefined && b > 0 ? `${(a / b).toFixed(2)}x` : '-');
  };
  const hits = [before, after].map(({ load }) => load.kvHitRatio);
  return [
    row('', before.policy, after.policy, 'ratio'),
    latency('TTFT mean ms', ({ load }) => load.ttftMs.mean),
    latency('TTFT p50 ms', ({ load }) => load.ttftMs.p50),
    latency('TTFT p90 ms', ({ load }) => load.ttftMs.p90),
    latency('TTFT p99 ms', ({ load }) => load.ttftMs.p99),
    latency('TPOT mean ms', ({ load }) => load.tpotMs.mean),
    latency('E2E mean ms', ({ load }) => load.e2eMs.mean),
    row('cache hits', ...hits.map((hit) => (hit === undefined ? '-' : percent(hit, 1)))),
    row('requests', String(before.load.sent), String(after.load.sent)),
    row('failed', String(before.load.failed), String(after.load.failed)),
  ];
}

function instanceTable({ phases, nodes }: Report): string[] {
  const header = `${'instance'.padEnd(10)}${'GPU'.padEnd(8)}${phases.map(({ policy }) => `${policy}: share`.padStart(20) + 'TTFT mean'.padStart(12)).join('')}`;
  const rows = nodes.map(({ instance, gpu }) => {
    const cells = phases.map(({ counters }) => {
      const one = counters.instances[instance];
      const all = Object.values(counters.instances).reduce((sum, { attempts }) => sum + attempts, 0);
      const ttft = one && one.firstTokens > 0 ? `${ms(one.ttftSumMs / one.firstTokens)} ms` : '-';
      return percent(one?.attempts ?? 0, all, 0).padStart(20) + ttft.padStart(12);
    });
    return `${instance.padEnd(10)}${gpu.padEnd(8)}${cells.join('')}`;
  });
  return [header, ...rows];
}

function remarks(report: Report): string[] {
  const { phases, nodes, floorTtftMs, fastestGpu, trustedAfterMs } = report;
  const [before, after] = phases;
  const lines: string[] = [];
  const reached = after.load.ttftMs.mean;
  const gain =
    before.load.ttftMs.mean !== undefined && before.load.ttftMs.mean > 0
      ? before.load.ttftMs.mean / floorTtftMs
      : undefined;
  lines.push(
    `What bounds the gain: with an idle ${fastestGpu} and a full cache for each of them these requests would still take ${ms(floorTtftMs)} ms on average, so no router could gain more`,
    `than ${gain === undefined ? '-' : `${gain.toFixed(1)}x`} here; phase 2 is at ${ms(reached)} ms, and the rest is the other ${nodes.length - 1} GPUs' slower prefill, queueing, and caches that are split over ${nodes.length} instances.`,
  );
  lines.push(
    trustedAfterMs === undefined
      ? 'The predictor earned no trust in this time.'
      : `The predictor earned trust ${(trustedAfterMs / 1000).toFixed(0)} s after the first request.`,
  );
  const decisions = Object.values(after.counters.policies).reduce((sum, count) => sum + count, 0);
  const own = after.counters.policies[after.policy] ?? 0;
  if (own < decisions)
    lines.push(`In phase 2 ${after.policy} made ${percent(own, decisions)} of the decisions, the fallback the others.`);
  const { explore } = Object.fromEntries(
    Object.entries(after.counters.reasons).map(([name, count]) => [name.split(', ')[1] ?? '', count]),
  );
  if (explore)
    lines.push(
      `${explore} ${explore === 1 ? 'request of phase 2 was' : 'requests of phase 2 were'} sent to try another instance than the best.`,
    );
  lines.push(...warnings(report));
  return lines;
}

function warnings({ phases, nodes }: Report): string[] {
  return phases.flatMap(({ policy, load, usage, brain }) => {
    const lines: string[] = [];
    const lost = nodes
      .filter(({ instance }) => !brain?.instances.some((one) => one.instance === instance && one.health === 'up'))
      .map(({ instance }) => instance);
    if (lost.length > 0)
      lines.push(
        `The brain did not know ${lost.join(', ')} to be up at the end of ${policy}: the logs (--keep-logs) say why.`,
      );
    const busy = usage.hostBusyCores / usage.cores;
    if ((load.lateMs.p99 ?? 0) > LATE_MS || busy > BUSY_RATIO) {
      lines.push(
        `This machine was short of CPU during ${policy} (${usage.hostBusyCores.toFixed(1)} of ${usage.cores} cores busy, requests sent up to ${ms(load.lateMs.p99)} ms late): the emulated GPUs were slower than real ones.`,
      );
    }
    for (const [kind, count] of Object.entries(load.failures))
      lines.push(`${policy}: ${count} failed by ${kind}, for example: ${load.examples[kind] ?? ''}`);
    return lines;
  });
}
