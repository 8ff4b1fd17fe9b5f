/** Hears of a figure that cannot be, as `name is value`. */
export type NoteOdd = (name: string, text: string) => void;

/** Counts and sums beyond this are no measurement. */
const MAX_FIGURE = 1e15;
/** Rounding at the ends of a share. */
const SLACK = 1e-6;

/** A count as it was read: undefined, and said, where it is negative, not finite or beyond any measurement. */
export function countOf(name: string, value: number, note: NoteOdd, max: number = MAX_FIGURE): number | undefined {
  if (value >= 0 && value <= max) return value;
  note(name, String(value));
  return undefined;
}

/** A share of `max` at most: one outside is said and taken as the nearer end; undefined where it is not finite. */
export function shareOf(name: string, value: number, note: NoteOdd, max = 1): number | undefined {
  if (!(value >= -SLACK && value <= max + SLACK)) note(name, String(value));
  return Number.isFinite(value) ? Math.min(max, Math.max(0, value)) : undefined;
}

/**
 * Whole number from 1 to `max` in the text of a label; undefined where there is none, and said where it is something
 * else (Python's `None` is none).
 */
export function labelCountOf(name: string, text: string | undefined, max: number, note: NoteOdd): number | undefined {
  if (text === undefined || text === '' || text === 'None') return undefined;
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= max) return value;
  note(name, text.slice(0, 32));
  return undefined;
}
