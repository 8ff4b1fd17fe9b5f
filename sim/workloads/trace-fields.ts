import { errorMessage, LodestarError } from '../../shared/errors.ts';
import type { TraceFile } from './trace-source.ts';

/** One line of a trace as named fields. `where` is file and line, for errors. */
export interface TraceLine {
  where: string;
  field: (name: string) => unknown;
}

/** The lines of a JSON lines file, blank ones left out. TRACE_INVALID where a line is no JSON object. */
export function* jsonLines(file: TraceFile): Generator<TraceLine> {
  for (const [line, where] of linesOf(file)) {
    let row: unknown;
    try {
      row = JSON.parse(line);
    } catch (error) {
      throw new LodestarError('TRACE_INVALID', `${where}: is not JSON: ${errorMessage(error)}`, { cause: error });
    }
    if (typeof row !== 'object' || row === null || Array.isArray(row))
      throw new LodestarError('TRACE_INVALID', `${where}: is not an object`);
    const fields = row as Record<string, unknown>;
    yield { where, field: (name) => fields[name] };
  }
}

/**
 * The rows of a CSV file with a header (RFC 4180, but no line breaks within quotes). TRACE_INVALID if one of `columns`
 * is absent or a row is short.
 */
export function* csvLines(file: TraceFile, columns: readonly string[]): Generator<TraceLine> {
  let header: Map<string, number> | undefined;
  for (const [line, where] of linesOf(file)) {
    const cells = splitCsv(line);
    if (!header) {
      header = new Map(cells.map((name, at) => [name.trim(), at]));
      const names = header;
      const missing = columns.filter((name) => !names.has(name));
      if (missing.length > 0)
        throw new LodestarError('TRACE_INVALID', `${where}: the header has no column ${missing.join(', ')}`);
      continue;
    }
    if (cells.length < header.size)
      throw new LodestarError(
        'TRACE_INVALID',
        `${where}: has ${cells.length} columns where the header has ${header.size}`,
      );
    const names = header;
    yield { where, field: (name) => cells[names.get(name) ?? -1] };
  }
}

/** The field as a finite number of at least `min`; a text of digits counts. TRACE_INVALID otherwise. */
export function numberOf(line: TraceLine, name: string, min: number): number {
  const value = line.field(name);
  const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
  if (typeof number === 'number' && Number.isFinite(number) && number >= min) return number;
  throw badField(line, name, `a number${min === -Infinity ? '' : ` of at least ${min}`}`);
}

/** The field as a text, which may be empty. */
export function textOf(line: TraceLine, name: string): string {
  const value = line.field(name);
  if (typeof value === 'string') return value;
  throw badField(line, name, 'a text');
}

/** TRACE_INVALID that names file, line, field and what was found. */
export function badField(line: TraceLine, name: string, expected: string): LodestarError {
  const found = JSON.stringify(line.field(name)) ?? 'nothing';
  return new LodestarError(
    'TRACE_INVALID',
    `${line.where}: ${name} must be ${expected}, found ${found.length > 80 ? `${found.slice(0, 80)}…` : found}`,
  );
}

/** First line that is not blank. */
export function firstLineOf(text: string): string {
  return /\S[^\n]*/.exec(text)?.[0].trimEnd() ?? '';
}

function* linesOf(file: TraceFile): Generator<[line: string, where: string]> {
  const { name, text } = file;
  let number = 0;
  for (let at = 0; at < text.length;) {
    const feed = text.indexOf('\n', at);
    const end = feed < 0 ? text.length : feed;
    const line = text.slice(at, end).trimEnd();
    number++;
    if (line !== '') yield [number === 1 ? line.replace(/^\uFEFF/, '') : line, `${name} line ${number}`];
    at = end + 1;
  }
}

function splitCsv(line: string): string[] {
  if (!line.includes('"')) return line.split(',');
  const cells: string[] = [];
  for (const [, quoted, bare] of line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g))
    cells.push(quoted === undefined ? (bare ?? '') : quoted.replaceAll('""', '"'));
  return cells;
}
