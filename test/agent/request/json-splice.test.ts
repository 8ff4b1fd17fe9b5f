import { describe, expect, test } from 'vitest';
import { setTopLevel } from '../../../agent/request/json-splice.ts';
import { type Rng, seededRng } from '../../../shared/env.ts';
import { below, pick } from '../../helpers/random.ts';

const KEY = 'stream_options';
const KEYS = [KEY, 'messages', 'a"b', 'back\\slash', 'ü', '👋', 'stream', '', '{', '"stream_options":1,', 'x\ny'];

function space(rng: Rng): string {
  return pick(rng, ['', '', '', ' ', '\n', '\t ', '\r\n  ']);
}

/** A string in JSON, with characters escaped at random as any client may. */
function text(rng: Rng, value: string): string {
  const inner = [...value].map((char) => {
    if (char === '"' || char === '\\' || char < ' ') return JSON.stringify(char).slice(1, -1);
    return rng() < 0.15 ? char.split('').map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`).join('') : char;
  });
  return `"${inner.join('')}"`;
}

function valueJson(rng: Rng, depth: number): string {
  const kind = below(rng, depth > 0 ? 7 : 5);
  if (kind === 0) return pick(rng, ['1', '-0.5e+10', '12345678901234567890', 'true', 'false', 'null']);
  if (kind <= 4) return text(rng, pick(rng, [...KEYS, 'plain', ',:}]{[', '\\"', '{"stream_options":{"include_usage":false}}']));
  if (kind === 5) return objectJson(rng, depth - 1);
  const items = Array.from({ length: below(rng, 4) }, () => space(rng) + valueJson(rng, depth - 1) + space(rng));
  return `[${items.length > 0 ? items.join(',') : space(rng)}]`;
}

function objectJson(rng: Rng, depth: number): string {
  const members = Array.from({ length: below(rng, 6) }, () => `${space(rng)}${text(rng, pick(rng, KEYS))}${space(rng)}:${space(rng)}${valueJson(rng, depth)}${space(rng)}`);
  return `{${members.length > 0 ? members.join(',') : space(rng)}}`;
}

describe('setTopLevel', () => {
  test('agrees with JSON.parse on random objects, and leaves every other byte alone', () => {
    const rng = seededRng(5);
    for (let round = 0; round < 5000; round++) {
      const body = space(rng) + objectJson(rng, 3) + space(rng);
      const value = `{"include_usage":true,"n":${round}}`;
      const out = setTopLevel(Buffer.from(body), KEY, value).toString();
      expect(JSON.parse(out), body).toEqual({ ...(JSON.parse(body) as object), [KEY]: JSON.parse(value) as unknown });
      const at = out.indexOf(value);
      const head = out.slice(0, at);
      const tail = out.slice(at + value.length);
      const added = `"${KEY}":`;
      const replaced = body.startsWith(head) && body.endsWith(tail);
      const inserted = head.endsWith(added) && `${head.slice(0, -added.length)}${tail.replace(/^,/, '')}` === body;
      expect(replaced || inserted, body).toBe(true);
    }
  });

  test.each([
    ['{}', '{"k":1}'],
    [' {\n} ', ' {"k":1\n} '],
    [`{${' '.repeat(300)}}`, `{"k":1${' '.repeat(300)}}`],
    ['{"a":12345678901234567890}', '{"k":1,"a":12345678901234567890}'],
    ['{"k":0,"a":2}', '{"k":1,"a":2}'],
    ['{"k": 0, "k": 5 }', '{"k": 0, "k":1}'],
    ['{"a":{"k":0},"k":[1,{"k":2}]}', '{"a":{"k":0},"k":1}'],
    ['{"\\u006b":0}', '{"\\u006b":1}'],
  ])('%s', (body, expected) => {
    expect(setTopLevel(Buffer.from(body), 'k', '1').toString()).toBe(expected);
  });
});
