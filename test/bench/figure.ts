import { quantile } from '../../sim/workloads/index.ts';

/** One line of a benchmark's result; `target` and `ok` where the project promises something. */
export interface Figure {
  name: string;
  value: number;
  unit: string;
  target?: string;
  ok?: boolean;
}

/** Quantile of values in any order. */
export function quantileOf(values: readonly number[], q: number): number {
  return quantile(
    values.toSorted((x, y) => x - y),
    q,
  );
}

export function printFigures(title: string, figures: readonly Figure[]): void {
  console.log(`\n${title}`);
  for (const { name, value, unit, target, ok } of figures) {
    const promise = target ? `   target ${target}: ${ok ? 'met' : 'MISSED'}` : '';
    console.log(`  ${name.padEnd(52)} ${value.toFixed(value < 10 ? 2 : 1).padStart(9)} ${unit}${promise}`);
  }
}
