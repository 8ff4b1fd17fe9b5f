import { InvalidArgumentError } from 'commander';

/** Entries that a fleet is planned for at most. */
const MAX_ENTRIES = 256;

/** A number above 0. */
export function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0 && Number.isFinite(value))) throw new InvalidArgumentError('It must be a number above 0.');
  return value;
}

/** A number of at least 0. */
export function notNegative(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0 && Number.isFinite(value)))
    throw new InvalidArgumentError('It must be a number of at least 0.');
  return value;
}

/** A whole number of at least 1. */
export function whole(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new InvalidArgumentError('It must be a whole number of at least 1.');
  return value;
}

/** As many entries as a fleet may have. */
export function entryCount(text: string): number {
  const value = whole(text);
  if (value > MAX_ENTRIES) throw new InvalidArgumentError(`It must be at most ${MAX_ENTRIES}.`);
  return value;
}

/** Whole numbers of at least 1, each once, by commas. */
export function wholes(text: string): number[] {
  return [...new Set(text.split(',').map(whole))];
}

/** Names by commas, each once and each one of `known`. */
export function oneOfEach<Name extends string>(known: readonly Name[]): (text: string) => Name[] {
  return (text) => {
    const names = [...new Set(text.split(',').map((part) => part.trim()))];
    const unknown = names.filter((name) => !(known as readonly string[]).includes(name));
    if (unknown.length > 0)
      throw new InvalidArgumentError(
        `${unknown.join(', ')} ${unknown.length === 1 ? 'is' : 'are'} unknown; known are ${known.join(', ')}.`,
      );
    return names as Name[];
  };
}
