/** A bar of `width` characters, filled by `ratio` (0 to 1). */
export function bar(ratio: number, width: number): string {
  const filled = Math.round(Math.min(1, Math.max(0, ratio)) * width);
  return '█'.repeat(filled) + '░'.repeat(width - filled);
}

/** Milliseconds for people: whole above 100, else one decimal; a dash where there is no value. */
export function ms(value: number | undefined): string {
  if (value === undefined || !Number.isFinite(value)) return '-';
  return value.toFixed(value >= 100 ? 0 : 1);
}

/** part / whole in percent; a dash of nothing. */
export function percent(part: number, whole: number, decimals = 1): string {
  return whole > 0 ? `${((100 * part) / whole).toFixed(decimals)} %` : '-';
}

/** Two texts at the ends of a line. */
export function padLine(left: string, right: string, width: number): string {
  return left + ' '.repeat(Math.max(1, width - left.length - right.length)) + right;
}
