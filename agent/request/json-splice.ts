const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
const COLON = 0x3a;
const COMMA = 0x2c;
const WHITESPACE: ReadonlySet<number> = new Set([0x20, 0x09, 0x0a, 0x0d]);

/**
 * Sets one top-level key of a JSON object in its bytes, leaving every other byte as the client sent it (large integers and odd spacing survive).
 * `body` must be a valid JSON object. If the key is there more than once, the last one counts, as in JSON parsers, and is replaced.
 */
export function setTopLevel(body: Buffer, key: string, valueJson: string): Buffer {
  const range = findTopLevel(body, key);
  if (range) return Buffer.concat([body.subarray(0, range.start), Buffer.from(valueJson), body.subarray(range.end)]);
  const open = body.indexOf(OPEN_OBJECT);
  let next = open + 1;
  while (WHITESPACE.has(body[next] as number)) next += 1;
  const empty = body[next] === CLOSE_OBJECT;
  return Buffer.concat([body.subarray(0, open + 1), Buffer.from(`${JSON.stringify(key)}:${valueJson}${empty ? '' : ','}`), body.subarray(open + 1)]);
}

/** Byte range of the value of a top-level key. */
function findTopLevel(body: Buffer, key: string): { start: number; end: number } | undefined {
  let depth = 0;
  let expectKey = false;
  let matched = false;
  let valueStart = -1;
  let found: { start: number; end: number } | undefined;
  const endValue = (at: number): void => {
    if (matched && valueStart >= 0) found = { start: valueStart, end: at };
    matched = false;
    valueStart = -1;
  };
  for (let at = body.indexOf(OPEN_OBJECT); at >= 0 && at < body.length; at++) {
    const byte = body[at];
    if (byte === QUOTE) {
      const end = endOfString(body, at);
      if (depth === 1 && expectKey) matched = JSON.parse(body.toString('utf8', at, end)) === key;
      expectKey = expectKey && depth !== 1;
      at = end - 1;
    } else if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) {
      depth += 1;
      if (depth === 1) expectKey = true;
    } else if (byte === CLOSE_OBJECT || byte === CLOSE_ARRAY) {
      if (depth === 1) endValue(at);
      depth -= 1;
      if (depth === 0) break;
    } else if (depth === 1 && byte === COLON) {
      valueStart = at + 1;
    } else if (depth === 1 && byte === COMMA) {
      endValue(at);
      expectKey = true;
    }
  }
  return found;
}

/** Index after the closing quote of the string that opens at `at`. */
export function endOfString(body: Buffer, at: number): number {
  let next = at + 1;
  while (next < body.length && body[next] !== QUOTE) next += body[next] === BACKSLASH ? 2 : 1;
  return next + 1;
}
