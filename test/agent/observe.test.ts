import { expect, test } from 'vitest';
import { AnswerObserver } from '../../agent/observe.ts';

const ROLE = 'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n';
const token = (text: string): string => `data: {"choices":[{"index":0,"delta":{"content":${JSON.stringify(text)}}}]}\n\n`;
const USAGE = 'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":0}}}\n\n';
const DONE = 'data: [DONE]\n\n';
const PARTS = [ROLE + token('a'), token('b\n\nü'), token('c'), USAGE + DONE];

/** Passes `bytes` through in chunks that end at `cuts`. */
function pass(observer: AnswerObserver, bytes: Buffer, cuts: readonly number[]): Buffer {
  const out: Buffer[] = [];
  let from = 0;
  for (const to of [...cuts, bytes.length]) {
    if (to <= from) continue;
    const part = observer.filter(bytes.subarray(from, to), from);
    if (part) out.push(Buffer.from(part));
    from = to;
  }
  const rest = observer.finish(from);
  if (rest) out.push(rest);
  return Buffer.concat(out);
}

test('the usage chunk that only we asked for is cut out, wherever packets split; all else passes byte for byte', () => {
  const whole = Buffer.from(PARTS.join(''));
  const without = PARTS.join('').replace(USAGE, '');
  for (let cut = 0; cut <= whole.length; cut++) {
    const observer = new AnswerObserver(true, true);
    expect(pass(observer, whole, [cut, cut + 7]).toString()).toBe(without);
    expect(observer.observed.tokens).toBe(3);
    expect(observer.observed.usage?.outputTokens).toBe(3);
  }
});

test('a usage chunk that the client asked for stays, and the chunks are the very buffers', () => {
  const observer = new AnswerObserver(true, false);
  for (const part of PARTS) {
    const chunk = Buffer.from(part);
    expect(observer.filter(chunk, 1)).toBe(chunk);
  }
  expect(observer.finish(2)).toBeUndefined();
  expect(observer.observed.usage?.promptTokens).toBe(9);
});

test('with stripping on, a chunk that is one whole event is passed without a copy', () => {
  const observer = new AnswerObserver(true, true);
  const chunk = Buffer.from(token('x'));
  expect(observer.filter(chunk, 1)).toBe(chunk);
});

test('an error body that is no event stream reaches the client whole', () => {
  const body = Buffer.from('{"error":{"message":"no","code":400}}');
  expect(pass(new AnswerObserver(true, true), body, [5])).toEqual(body);
});

test('times: first byte, last token, and the role chunk is no token', () => {
  const observer = new AnswerObserver(true, false);
  observer.filter(Buffer.from(ROLE), 10);
  expect(observer.observed).toMatchObject({ ttftMs: 10, tokens: 0, lastTokenMs: undefined });
  observer.filter(Buffer.from(token('a') + token('b')), 30);
  observer.filter(Buffer.from(USAGE + DONE), 40);
  expect(observer.observed).toMatchObject({ ttftMs: 10, tokens: 2, lastTokenMs: 30, inBandError: false });
});

test('an error event inside the stream is noticed', () => {
  const observer = new AnswerObserver(true, true);
  observer.filter(Buffer.from(`${token('a')}data: {"error":{"message":"died"}}\n\n${DONE}`), 1);
  expect(observer.observed.inBandError).toBe(true);
});

test('a plain answer passes untouched and its usage is read at the end', () => {
  const observer = new AnswerObserver(false, false);
  const body = Buffer.from('{"choices":[{"text":"data: [DONE]\\n\\n"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}');
  expect(pass(observer, body, [3, 20, 33])).toEqual(body);
  expect(observer.observed.usage?.outputTokens).toBe(4);
  expect(observer.observed.ttftMs).toBeUndefined();
});
