/** One line of a benchmark's result; `target` and `ok` where the project promises something. */
export interface Figure {
  name: string;
  value: number;
  unit: string;
  target?: string;
  ok?: boolean;
}

export function quantileOf(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? NaN;
}

export function printFigures(title: string, figures: readonly Figure[]): void {
  console.log(`\n${title}`);
  for (const { name, value, unit, target, ok } of figures) {
    const promise = target ? `   target ${target}: ${ok ? 'met' : 'MISSED'}` : '';
    console.log(`  ${name.padEnd(52)} ${value.toFixed(value < 10 ? 2 : 1).padStart(9)} ${unit}${promise}`);
  }
}
