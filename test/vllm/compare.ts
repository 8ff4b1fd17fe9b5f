import { summarize } from '../../sim/workloads/index.ts';
import type { Seen } from './simulate.ts';

/** One figure of a comparison: the real value, the simulated one and how far they may differ. */
export interface Comparison {
  name: string;
  unit: string;
  real: number;
  simulated: number;
  /** relative to the real value; undefined: no promise */
  allowed: number | undefined;
}

/** The four promised figures of a load. Times in ms. */
export function compare(real: readonly Seen[], simulated: readonly Seen[]): Comparison[] {
  const [a, b] = [figuresOf(real), figuresOf(simulated)];
  return [
    { name: 'mean TTFT', unit: 'ms', real: a.ttftMean, simulated: b.ttftMean, allowed: 0.05 },
    { name: 'p99 TTFT', unit: 'ms', real: a.ttftP99, simulated: b.ttftP99, allowed: 0.1 },
    { name: 'mean E2E', unit: 'ms', real: a.e2eMean, simulated: b.e2eMean, allowed: 0.03 },
    { name: 'hit tokens', unit: '', real: a.hits, simulated: b.hits, allowed: 0.01 },
  ];
}

/** Simulated against real, as a share of the real value. */
export function difference({ real, simulated }: Comparison): number {
  return real === simulated ? 0 : simulated / real - 1;
}

export function isMet(comparison: Comparison): boolean {
  return comparison.allowed === undefined || Math.abs(difference(comparison)) <= comparison.allowed;
}

/** One line of the table. */
export function line(comparison: Comparison): string {
  const { name, unit, real, simulated, allowed } = comparison;
  const promise =
    allowed === undefined ? '' : `within ${(allowed * 100).toFixed(0)} %: ${isMet(comparison) ? 'met' : 'MISSED'}`;
  const off = `${(difference(comparison) * 100).toFixed(1)} %`;
  return `  ${name.padEnd(28)} ${figure(real)} ${figure(simulated)} ${unit.padEnd(2)} ${off.padStart(8)}   ${promise}`.trimEnd();
}

function figure(value: number): string {
  return value.toFixed(Math.abs(value) < 100 ? 1 : 0).padStart(10);
}

function figuresOf(seen: readonly Seen[]): { ttftMean: number; ttftP99: number; e2eMean: number; hits: number } {
  const ttft = summarize(seen.map((one) => one.ttftMs));
  const e2e = summarize(seen.map((one) => one.e2eMs));
  return {
    ttftMean: ttft.mean ?? NaN,
    ttftP99: ttft.p99 ?? NaN,
    e2eMean: e2e.mean ?? NaN,
    hits: seen.reduce((sum, one) => sum + one.cachedTokens, 0),
  };
}
