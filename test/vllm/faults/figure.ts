import { table } from '../../../cli/sim-report.ts';

/** One measured figure of a scenario, with what is promised of it. */
export interface Figure {
  name: string;
  /** as text; empty: told for information, without a promise */
  target: string;
  measured: string;
  isMet: boolean;
}

export function atMost(name: string, value: number, most: number, unit: string): Figure {
  return { name, target: `<= ${most} ${unit}`, measured: `${short(value)} ${unit}`, isMet: value <= most };
}

/** A count that must be so. */
export function exactly(name: string, value: number, wanted: number): Figure {
  return { name, target: String(wanted), measured: String(value), isMet: value === wanted };
}

export function atLeast(name: string, value: number, least: number, unit = ''): Figure {
  return {
    name,
    target: `>= ${least} ${unit}`.trimEnd(),
    measured: `${short(value)} ${unit}`.trimEnd(),
    isMet: value >= least,
  };
}

export function told(name: string, measured: string): Figure {
  return { name, target: '', measured, isMet: true };
}

export function figureTable(results: ReadonlyMap<string, readonly Figure[]>): string {
  const rows = [...results].flatMap(([scenario, figures]) =>
    figures.map(({ name, target, measured, isMet }) => [
      `${scenario}: ${name}`,
      target || '-',
      measured,
      target === '' ? '-' : isMet ? 'ok' : 'MISSED',
    ]),
  );
  return table([['figure', 'target', 'measured', 'ok'], ...rows]);
}

function short(value: number): string {
  return Number.isInteger(value) ? String(value) : value.toFixed(2);
}
