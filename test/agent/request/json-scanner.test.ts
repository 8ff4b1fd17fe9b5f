import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { MAX_PROMPT_BYTES } from '../../../agent/request/fingerprint.ts';
import { spliced } from '../../../agent/request/json-splice.ts';
import { type ClientRequest, RequestReader } from '../../../agent/request/read.ts';
import { type Rng, seededRng } from '../../../shared/env.ts';
import { below, pick } from '../../helpers/random.ts';
import { readPieces } from '../../helpers/read-request.ts';

const CHAT = '/v1/chat/completions';
const TEXTS = [
  '',
  'Hi',
  'a "quoted" word',
  'back\\slash',
  'ü👋',
  'two\nlines\t',
  '{"model":"no"}',
  ',:}]{[',
  '\\"',
  'x'.repeat(70),
  '\u2028',
  'é\u0000',
];
const FIELDS = [
  'model',
  'stream',
  'stream_options',
  'max_tokens',
  'n',
  'cache_salt',
  'priority',
  'messages',
  'prompt',
  'input',
  'tools',
  'system',
  'instructions',
  'metadata',
  'ü',
  '',
  'a"b',
  '{',
];
const MEMBERS = ['role', 'content', 'tool_calls', 'name', 'text', 'type', 'image_url', 'a\\b'];

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** JSON with white space at random and, if wanted, characters escaped at random as any client may. */
class Text {
  private readonly rng: Rng;
  private readonly escapes: boolean;

  constructor(rng: Rng, escapes: boolean) {
    this.rng = rng;
    this.escapes = escapes;
  }

  space(): string {
    return pick(this.rng, ['', '', '', '', ' ', '\n', '\t ', '\r\n  ']);
  }

  string(value: string): string {
    const inner = [...value].map((char) => {
      if (char === '"' || char === '\\' || char < ' ') return JSON.stringify(char).slice(1, -1);
      return this.escapes && this.rng() < 0.15
        ? [...char]
            .flatMap((one) => one.split(''))
            .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
            .join('')
        : char;
    });
    return `"${inner.join('')}"`;
  }

  of(value: Json): string {
    if (typeof value === 'string') return this.string(value);
    if (typeof value !== 'object' || value === null) return JSON.stringify(value);
    const list = Array.isArray(value)
      ? value.map((one) => this.of(one))
      : Object.entries(value).map(([key, one]) => this.member(key, one));
    const inner = list.map((one) => this.space() + one + this.space()).join(',') || this.space();
    return Array.isArray(value) ? `[${inner}]` : `{${inner}}`;
  }

  member(key: string, value: Json): string {
    return `${this.string(key)}${this.space()}:${this.space()}${this.of(value)}`;
  }
}

function randomJson(rng: Rng, depth: number, keys: readonly string[] = MEMBERS): Json {
  const kind = below(rng, depth > 0 ? 9 : 5);
  if (kind <= 2) return pick(rng, TEXTS);
  if (kind <= 4) return pick<Json>(rng, [null, true, false, 0, 7, 123_456, -0.5, 1e21]);
  if (kind <= 6)
    return Object.fromEntries(
      Array.from({ length: below(rng, 4) }, () => [pick(rng, keys), randomJson(rng, depth - 1)]),
    );
  return Array.from({ length: below(rng, 4) }, () => randomJson(rng, depth - 1));
}

/** Values that a field mostly has, so that the ways of reading each are met. */
function randomValue(rng: Rng, field: string): Json {
  const list = <T>(make: () => T): T[] => Array.from({ length: below(rng, 4) }, make);
  const ids = (): number[] => list(() => below(rng, 200_000));
  const part = (): Json =>
    pick<Json>(rng, [
      { type: 'text', text: pick(rng, TEXTS) },
      { type: 'image_url', image_url: { url: 'A'.repeat(below(rng, 600)) } },
      randomJson(rng, 2),
    ]);
  const content = (): Json => pick<Json>(rng, [pick(rng, TEXTS), list(part), null, randomJson(rng, 2)]);
  const message = (): Json =>
    pick<Json>(rng, [
      { role: pick(rng, ['user', 'assistant', '']), content: content() },
      { content: content(), role: 'user', tool_calls: randomJson(rng, 2) },
      randomJson(rng, 2),
    ]);
  if (rng() < 0.15) return randomJson(rng, 3);
  if (field === 'messages') return list(message);
  if (field === 'system' || field === 'instructions') return content();
  if (field === 'prompt' || field === 'input')
    return pick<Json>(rng, [pick(rng, TEXTS), ids(), list(() => pick(rng, TEXTS)), list(ids), list(message), null]);
  if (field === 'stream') return true;
  if (field === 'stream_options')
    return pick<Json>(rng, [null, {}, { include_usage: rng() < 0.5 }, { continuous_usage_stats: true }]);
  return randomJson(rng, 3);
}

/** JSON that a prompt takes over as it is written, spaces aside. */
let takenOver = 0;

function jsonOf(value: unknown): string {
  takenOver += 1;
  return JSON.stringify(value);
}

/** The prompt of a request, worked out of the whole body at once: the form that PromptReader must give. */
function promptOf(json: Record<string, unknown>): { prompt: Buffer; promptIsTokens: boolean; batch: number } {
  const none = { prompt: Buffer.alloc(0), promptIsTokens: false, batch: 1 };
  const input = typeof json['input'] === 'string' ? [{ role: 'user', content: json['input'] }] : json['input'];
  const raw = json['prompt'] ?? input;
  if (typeof raw === 'string') return { ...none, prompt: Buffer.from(raw) };
  if (isTokens(raw)) return { ...none, prompt: tokens(raw), promptIsTokens: true };
  if (Array.isArray(raw) && raw.length > 0 && !isObject(raw[0])) {
    const first: unknown = raw[0];
    if (isTokens(first)) return { prompt: tokens(first), promptIsTokens: true, batch: raw.length };
    return { prompt: Buffer.from(typeof first === 'string' ? first : ''), promptIsTokens: false, batch: raw.length };
  }
  const messages = Array.isArray(json['messages']) ? json['messages'] : Array.isArray(raw) ? raw : undefined;
  if (!messages) return none;
  const parts: string[] = [];
  if (json['tools'] !== undefined) parts.push(jsonOf(json['tools']));
  for (const key of ['system', 'instructions'])
    if (json[key] !== undefined) parts.push('\u0001system\u0002', textOf(json[key]));
  for (const message of messages) {
    if (!isObject(message)) continue;
    const role = message['role'];
    parts.push(
      '\u0001',
      typeof role === 'object' && role !== null ? jsonOf(role) : String(role),
      '\u0002',
      textOf(message['content']),
    );
    if (message['tool_calls'] !== undefined) parts.push(jsonOf(message['tool_calls']));
  }
  return { ...none, prompt: Buffer.from(parts.join('')) };
}

function textOf(content: unknown): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return content === undefined || content === null ? '' : jsonOf(content);
  return content
    .map((part: unknown) => (isObject(part) && typeof part['text'] === 'string' ? part['text'] : digest(jsonOf(part))))
    .join('');
}

function digest(json: string): string {
  return Buffer.byteLength(json) <= 256 ? json : createHash('sha256').update(json).digest('hex');
}

function isTokens(value: unknown): value is number[] {
  return (
    Array.isArray(value) &&
    typeof value[0] === 'number' &&
    value.every((one) => typeof one === 'number' && Number.isInteger(one) && one >= 0 && one < 2 ** 32)
  );
}

/** Lists that begin as token ids and are none: what is read of them is the engine's to refuse. */
function isOdd(value: unknown): boolean {
  return Array.isArray(value) && ((typeof value[0] === 'number' && !isTokens(value)) || isOdd(value[0]));
}

function tokens(ids: readonly number[]): Buffer {
  return Buffer.from(Uint32Array.from(ids).buffer);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Cuts at random places, so that any state of the reading is met at the end of a piece. */
function pieces(rng: Rng, body: Buffer): Buffer[] {
  const out: Buffer[] = [];
  const most = pick(rng, [1, 3, 20, 500]);
  for (let at = 0; at < body.length;) {
    const size = 1 + below(rng, most);
    out.push(body.subarray(at, at + size));
    at += size;
  }
  return out;
}

describe('random bodies', () => {
  test('are read as JSON.parse would, wherever they are cut', () => {
    const rng = seededRng(11);
    let compared = 0;
    for (let round = 0; round < 6000; round++) {
      const escapes = rng() < 0.5;
      const text = new Text(rng, escapes);
      const members = Array.from({ length: below(rng, 7) }, () => {
        const key = pick(rng, FIELDS);
        return text.member(key, randomValue(rng, key));
      });
      const body = `${text.space()}{${members.map((one) => text.space() + one + text.space()).join(',') || text.space()}}${text.space()}`;
      const json = JSON.parse(body) as Record<string, unknown>;
      if (isOdd(json['prompt']) || isOdd(json['input'])) continue;
      const request = readPieces(CHAT, {}, pieces(rng, Buffer.from(body)));
      const before = takenOver;
      const { batch, ...expected } = promptOf(json);
      if (escapes && takenOver > before) continue;
      compared += 1;
      expect({ prompt: request.prompt.toString('latin1'), promptIsTokens: request.promptIsTokens }, body).toEqual({
        ...expected,
        prompt: expected.prompt.toString('latin1'),
      });
      expect(request.promptBytes, body).toBe(expected.prompt.length);
      expect(request.model, body).toBe(typeof json['model'] === 'string' ? json['model'] : undefined);
      if (json['n'] === undefined) expect(request.sequences, body).toBe(batch);
      expectUsage(request, body, json);
      expectSameBefore(request, rng, body);
    }
    expect(compared).toBeGreaterThan(3000);
  });

  function expectUsage(request: ClientRequest, body: string, json: Record<string, unknown>): void {
    const options = json['stream_options'];
    const sent = JSON.parse(Buffer.concat(spliced(request.body, request.usageSplice)).toString()) as Record<
      string,
      unknown
    >;
    const asked = isObject(options) && (options['include_usage'] === true || options['include_usage'] === 1);
    const wanted =
      json['stream'] === true && !asked && (options === undefined || options === null || isObject(options));
    if (!wanted) return expect(sent, body).toEqual(json);
    const continuous =
      isObject(options) && 'continuous_usage_stats' in options ? { continuous_usage_stats: false } : {};
    expect(sent, body).toEqual({
      ...json,
      stream_options: { ...(isObject(options) ? options : {}), ...continuous, include_usage: true },
    });
  }

  /** A door reads no further than the entry says, and comes to the same. */
  function expectSameBefore(request: ClientRequest, rng: Rng, body: string): void {
    const marked = Buffer.from(body);
    marked.fill('!', request.promptEnd);
    const again = readPieces(CHAT, {}, pieces(rng, marked), request);
    expect(again.prompt.equals(request.prompt), body).toBe(true);
    expect({ ...again, body: request.body, prompt: request.prompt }, body).toEqual(request);
  }

  test('half of a body, or one that is none, is never an error', () => {
    const rng = seededRng(12);
    for (let round = 0; round < 3000; round++) {
      const text = new Text(rng, true);
      const bytes = Buffer.from(text.of(Object.fromEntries(FIELDS.map((key) => [key, randomValue(rng, key)]))));
      const body = bytes.subarray(0, below(rng, bytes.length));
      for (let i = below(rng, 4); i > 0; i--)
        body[below(rng, Math.max(1, body.length))] = pick(rng, [...Buffer.from('{}[]",:\\u0 ')]);
      expect(() => readPieces(CHAT, {}, pieces(rng, body))).not.toThrow();
    }
  });
});

test('halves of surrogate pairs become what UTF-8 has for them', () => {
  for (const text of [
    '"\\ud83d"',
    '"\\ude00"',
    '"\\ud83d\\ud83d\\ude00"',
    '"\\ud83dx"',
    '"\\ud83d\\n"',
    '"\\ud83d\\u0041"',
  ]) {
    const expected = Buffer.from(JSON.parse(text) as string).toString('hex');
    for (const size of [1, 2, 100]) {
      const body = Buffer.from(`{"prompt":${text}}`);
      const cut = Array.from({ length: Math.ceil(body.length / size) }, (_, i) =>
        body.subarray(i * size, (i + 1) * size),
      );
      expect(readPieces('/v1/completions', {}, cut).prompt.toString('hex')).toBe(expected);
    }
  }
});

describe('hostile bodies', () => {
  const UNITS = 300_000;
  const FIELD_BYTES = 65_536;
  /** The parts of a prompt, a message's text and calls, and the fields. */
  const MAX_HELD_BYTES = 4 * MAX_PROMPT_BYTES + 4 * FIELD_BYTES;
  const long = 'A'.repeat(4_000_000);

  test.each([
    ['messages of nothing', `{"messages":[${'{},'.repeat(UNITS)}{}],"model":"m"}`],
    ['messages that are none', `{"messages":[${'[],'.repeat(UNITS)}7],"model":"m"}`],
    [
      'a picture in base64',
      `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"${long}"}}]}],"model":"m"}`,
    ],
    ['deep arrays', `{"messages":${'['.repeat(UNITS)}${']'.repeat(UNITS)},"model":"m"}`],
    [
      'deep objects in a message',
      `{"messages":[{"content":${'{"content":'.repeat(UNITS)}0${'}'.repeat(UNITS)}}],"model":"m"}`,
    ],
    ['one long string', `{"prompt":"${long}","model":"m"}`],
    ['a long role', `{"messages":[{"role":"${long}","content":"${long}","tool_calls":"${long}"}],"model":"m"}`],
    ['long values of fields', `{"user":"${long}","cache_salt":"${long}","stream_options":"${long}","model":"m"}`],
    [
      'escapes everywhere',
      `{"messages":[{"content":"${'\\n\\u00fc\\"\\\\'.repeat(UNITS)}"}],"x":"${'\\\\\\"'.repeat(UNITS)}","model":"m"}`,
    ],
    ['numbers as a prompt', `{"prompt":[${'1,'.repeat(1_000_000)}2],"model":"m"}`],
    ['prompts of one number', `{"prompt":[${'[1],'.repeat(UNITS)}[2]],"model":"m"}`],
    ['keys', `{${'"a":1,'.repeat(UNITS)}"model":"m"}`],
    ['the same key again and again', `{${'"model":"no","messages":[{}],'.repeat(UNITS / 3)}"model":"m"}`],
    ['a long key', `{"${long}":1,"model":"m"}`],
    ['parts of nothing', `{"messages":[{"content":[${'{"text":""},'.repeat(UNITS)}0]}],"model":"m"}`],
    ['white space', `{${' '.repeat(UNITS)}"messages"${'\n'.repeat(UNITS)}:[],"model":"m"}`],
  ])('%s: the model is found, and little is held', (_name, text) => {
    const body = Buffer.from(text);
    const reader = new RequestReader('POST', CHAT, {});
    let most = 0;
    for (let at = 0; at < body.length; at += 65_536) {
      reader.push(body.subarray(at, at + 65_536));
      most = Math.max(most, reader.heldBytes);
    }
    const request = reader.finish([body]);
    expect(request.model).toBe('m');
    expect(request.prompt.length).toBeLessThanOrEqual(MAX_PROMPT_BYTES);
    expect(most).toBeLessThanOrEqual(MAX_HELD_BYTES);
  });

  test('a prompt beyond what is fingerprinted is counted, and a door need not read it', () => {
    const ids = readPieces('/v1/completions', {}, [Buffer.from(`{"prompt":[${'1,'.repeat(1_999_999)}2],"model":"m"}`)]);
    expect(ids).toMatchObject({ promptIsTokens: true, promptBytes: 8_000_000, promptEnd: 11 + MAX_PROMPT_BYTES / 2 });
    const chat = readPieces(CHAT, {}, [
      Buffer.from(`{"messages":[${`{"role":"user","content":"${'a'.repeat(1000)}"},`.repeat(3000)}{}]}`),
    ]);
    expect(chat.prompt.length).toBe(MAX_PROMPT_BYTES);
    expect(chat.promptBytes).toBeGreaterThan(3_000_000);
    expect(chat.promptEnd).toBeLessThan(2_300_000);
  });
});
