/**
 * Quantile of ascending values by linear interpolation between ranks (type 7 of Hyndman and Fan, the default of NumPy
 * and R).
 */
export function quantile(ascending: ArrayLike<number>, q: number): number {
  if (ascending.length === 0) return NaN;
  const rank = q * (ascending.length - 1);
  const low = Math.floor(rank);
  const below = ascending[low] ?? NaN;
  const above = ascending[Math.min(low + 1, ascending.length - 1)] ?? NaN;
  return below + (above - below) * (rank - low);
}

/** Median of unsorted values, the lower of the two in the middle; null of none. */
export function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  // Typed arrays sort numbers several times faster than a comparison function does.
  const sorted = Float64Array.from(values).toSorted();
  return sorted[Math.floor((sorted.length - 1) / 2)] as number;
}
