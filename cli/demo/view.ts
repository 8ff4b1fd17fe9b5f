import { summarize } from '../../sim/workloads/index.ts';
import { bar, ms, padLine, percent } from './text.ts';
import type { DemoState, PhaseState } from './state.ts';

const NAME_WIDTH = 12;
const COLUMN_WIDTH = 16;
const MIN_WIDTH = 60;

/** The live view as lines of at most `width` characters. Depends on the state alone. */
export function viewLines(state: DemoState, width: number): string[] {
  const room = Math.max(MIN_WIDTH, width);
  const lines = [
    title(state, room),
    '',
    ...progressLines(state, room),
    '',
    ...comparison(state),
    '',
    ...learnerLines(state),
    '',
    ...instanceLines(state, room),
  ];
  return lines.map((line) => Array.from(line).slice(0, width).join('').trimEnd());
}

/** The same in one line, for logs. */
export function plainLine(state: DemoState): string {
  const clock = `[${String(Math.floor(state.elapsedMs / 1000)).padStart(3)} s]`;
  const phase = state.current === undefined ? undefined : state.phases[state.current];
  if (!phase || state.current === undefined)
    return `${clock} ${state.step}: ${state.ready} of ${state.processes} processes listen`;
  const { planned, succeeded, failed, inFlight } = phase.progress;
  const ttft = summarize(phase.ttftsMs);
  const parts = [
    `phase ${state.current + 1}, ${state.step}: ${succeeded + failed}/${planned} done, ${inFlight} in flight, ${failed} failed`,
    `TTFT mean ${ms(ttft.mean)} p50 ${ms(ttft.p50)} p99 ${ms(ttft.p99)} ms`,
    state.brain
      ? `${state.brain.trust.verdict}: ${state.brain.trust.reason}, table ${state.brain.table?.version ?? '-'}`
      : 'no word of the brain yet',
  ];
  return `${clock} ${parts.join('; ')}`;
}

function title(state: DemoState, width: number): string {
  const seconds = Math.floor(state.elapsedMs / 1000);
  const clock = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
  return padLine('Lodestar demo: 1 brain, 4 agents, 4 emulated GPUs', clock, width);
}

function progressLines(state: DemoState, width: number): string[] {
  if (state.current === undefined) {
    return [
      `${state.step}`,
      `${bar(state.ready / Math.max(1, state.processes), width - 30)} ${state.ready} of ${state.processes} processes listen`,
    ];
  }
  const { progress } = state.phases[state.current];
  const { planned, sent, inFlight, succeeded, failed, elapsedMs } = progress;
  const ended = succeeded + failed;
  const rate = elapsedMs > 0 ? (sent * 1000) / elapsedMs : 0;
  const counts = `${ended}/${planned} done, ${inFlight} in flight, ${sent < planned ? `${rate.toFixed(1)}/s` : 'all sent'}${failed > 0 ? `, ${failed} failed` : ''}`;
  return [
    `Phase ${state.current + 1} of 2: ${state.step}`,
    `${bar(ended / Math.max(1, planned), Math.max(10, width - counts.length - 1))} ${counts}`,
  ];
}

function comparison({ phases, current }: DemoState): string[] {
  const columns = phases.map((phase, at) => ({
    phase,
    ttft: summarize(phase.ttftsMs),
    begun: current !== undefined && at <= current,
  }));
  const row = (name: string, cell: (column: (typeof columns)[number]) => string): string =>
    name.padEnd(NAME_WIDTH) +
    columns.map((column) => (column.begun ? cell(column) : '-').padStart(COLUMN_WIDTH)).join('');
  return [
    ''.padEnd(NAME_WIDTH) + phases.map(({ policy }) => policy.padStart(COLUMN_WIDTH)).join(''),
    row('TTFT mean', ({ ttft }) => `${ms(ttft.mean)} ms`),
    row('TTFT p50', ({ ttft }) => `${ms(ttft.p50)} ms`),
    row('TTFT p99', ({ ttft }) => `${ms(ttft.p99)} ms`),
    row('cache hits', ({ phase }) => percent(phase.cachedTokens, phase.promptTokens)),
    row('failed', ({ phase }) => String(phase.progress.failed)),
  ];
}

function learnerLines({ brain, trustedAfterMs }: DemoState): string[] {
  if (!brain) return ['learner     no word yet', ''];
  const { trust, table, backend, learner, policy } = brain;
  const since = trustedAfterMs === undefined ? '' : ` (first after ${(trustedAfterMs / 1000).toFixed(0)} s)`;
  const error =
    trust.medianApe === null
      ? 'no prediction judged yet'
      : `off by ${Math.round(trust.medianApe * 100)} % (median of ${trust.samples})`;
  return [
    `learner     ${trust.verdict}${since}: ${trust.reason}`,
    `prediction  ${error}, by ${learner.champion === 'net' ? 'prior and net' : 'the prior'} on ${backend.name ?? 'no backend'}${backend.gpu ? ' (GPU)' : ''}`,
    `learning    ${learner.samples.received} samples, ${learner.rounds} rounds, ${learner.accepted} nets accepted; table ${table?.version ?? '-'}, ${policy.inForce} in force`,
  ];
}

function instanceLines(state: DemoState, width: number): string[] {
  const phase: PhaseState = state.phases[state.current ?? 0];
  const before = state.current === 1 ? state.phases[0] : undefined;
  const barWidth = Math.max(8, width - 62);
  const header = `${'instance'.padEnd(9)}${'GPU'.padEnd(7)}${'share of requests'.padEnd(barWidth + 16)}${'TTFT mean'.padStart(12)}${'hits'.padStart(8)}${'busy'.padStart(8)}`;
  const rows = state.instances.map(({ id, gpu }) => {
    const counted = phase.counters?.instances[id];
    const share = shareOf(phase, id);
    const was = before ? `was ${Math.round(shareOf(before, id) * 100)} %` : '';
    const ttft = counted && counted.firstTokens > 0 ? `${ms(counted.ttftSumMs / counted.firstTokens)} ms` : '-';
    const util = state.brain?.instances.find(({ instance }) => instance === id)?.gpuUtilRatio;
    const cells = [
      ttft.padStart(12),
      percent(counted?.hitTokens ?? 0, counted?.lookedUpTokens ?? 0, 0).padStart(8),
      (typeof util === 'number' ? `${Math.round(util * 100)} %` : '-').padStart(8),
    ];
    return `${id.padEnd(9)}${gpu.padEnd(7)}${bar(share, barWidth)}${`${Math.round(share * 100)} %`.padStart(6)} ${was.padEnd(9)}${cells.join('')}`;
  });
  return [header, ...rows];
}

function shareOf({ counters }: PhaseState, id: string): number {
  const all = Object.values(counters?.instances ?? {}).reduce((sum, { attempts }) => sum + attempts, 0);
  return all > 0 ? (counters?.instances[id]?.attempts ?? 0) / all : 0;
}
