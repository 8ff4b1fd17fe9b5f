/** One sample of an exposition: its labels as a set, and its value. */
export interface PrometheusSample {
  labels: Readonly<Record<string, string>>;
  value: number;
}

/** Samples by their full name (`…_total`, `…_bucket`, …) and the declared type of each family. */
export interface PrometheusPage {
  samples: ReadonlyMap<string, readonly PrometheusSample[]>;
  types: ReadonlyMap<string, string>;
}

/**
 * Parses the Prometheus text format 0.0.4, and OpenMetrics as far as it agrees (`# EOF`, exemplars and timestamps are
 * ignored). Only the names of `wanted` are kept, since a vLLM page has hundreds of buckets nobody reads. `_created`
 * series, which Python's client adds to counters and histograms, are never kept. A line that cannot be read is skipped.
 */
export function parsePrometheus(text: string, wanted?: ReadonlySet<string>): PrometheusPage {
  const samples = new Map<string, PrometheusSample[]>();
  const types = new Map<string, string>();
  for (let start = 0; start < text.length;) {
    let end = text.indexOf('\n', start);
    if (end < 0) end = text.length;
    if (text.charCodeAt(start) === 35 /* # */) readType(text.slice(start, end), types);
    else readSample(text, start, end, wanted, samples);
    start = end + 1;
  }
  return { samples, types };
}

function readType(line: string, types: Map<string, string>): void {
  const words = line.trim().split(/\s+/, 4);
  if (words[1] === 'TYPE' && words[2] !== undefined && words[3] !== undefined) types.set(words[2], words[3]);
}

function readSample(
  text: string,
  start: number,
  end: number,
  wanted: ReadonlySet<string> | undefined,
  into: Map<string, PrometheusSample[]>,
): void {
  let at = start;
  while (at < end && text[at] !== '{' && text[at] !== ' ' && text[at] !== '\t') at++;
  const name = text.slice(start, at);
  if (name === '' || name.endsWith('_created') || (wanted && !wanted.has(name))) return;
  const labels: Record<string, string> = {};
  if (text[at] === '{') {
    at = readLabels(text, at + 1, end, labels);
    if (at < 0) return;
  }
  const value = numberOf(text.slice(at, end).trim().split(/\s/, 1)[0] ?? '');
  if (value === undefined) return;
  const list = into.get(name);
  if (list) list.push({ labels, value });
  else into.set(name, [{ labels, value }]);
}

/** Reads `a="x",b="y"}` and returns the position after the brace, or -1 when the text is malformed. */
function readLabels(text: string, from: number, end: number, labels: Record<string, string>): number {
  let at = from;
  while (at < end) {
    while (text[at] === ',' || text[at] === ' ') at++;
    if (text[at] === '}') return at + 1;
    const equals = text.indexOf('="', at);
    if (equals < 0 || equals >= end) return -1;
    const close = closingQuote(text, equals + 2, end);
    if (close < 0) return -1;
    labels[text.slice(at, equals).trim()] = unescape(text.slice(equals + 2, close));
    at = close + 1;
  }
  return -1;
}

function closingQuote(text: string, from: number, end: number): number {
  for (let at = from; at < end; at++) {
    if (text[at] === '\\') at++;
    else if (text[at] === '"') return at;
  }
  return -1;
}

function unescape(text: string): string {
  return text.includes('\\') ? text.replaceAll(/\\(.)/g, (_, char: string) => (char === 'n' ? '\n' : char)) : text;
}

function numberOf(text: string): number | undefined {
  if (text === '+Inf' || text === 'Inf') return Infinity;
  if (text === '-Inf') return -Infinity;
  if (text === 'NaN') return NaN;
  const value = Number(text);
  return text === '' || Number.isNaN(value) ? undefined : value;
}
