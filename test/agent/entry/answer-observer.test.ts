import { describe, expect, test } from 'vitest';
import { AnswerObserver } from '../../../agent/entry/answer-observer.ts';

const ROLE = 'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n';
const token = (text: string): string =>
  `data: {"choices":[{"index":0,"delta":{"content":${JSON.stringify(text)}}}]}\n\n`;
const USAGE =
  'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":0}}}\n\n';
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
    const observer = new AnswerObserver('events', true);
    expect(pass(observer, whole, [cut, cut + 7]).toString()).toBe(without);
    expect(observer.observed.tokens).toBe(3);
    expect(observer.observed.usage?.outputTokens).toBe(3);
  }
});

test('a usage chunk that the client asked for stays, and the chunks are the very buffers', () => {
  const observer = new AnswerObserver('events', false);
  for (const part of PARTS) {
    const chunk = Buffer.from(part);
    expect(observer.filter(chunk, 1)).toBe(chunk);
  }
  expect(observer.finish(2)).toBeUndefined();
  expect(observer.observed.usage?.promptTokens).toBe(9);
});

test('with stripping on, a chunk that is one whole event is passed without a copy', () => {
  const observer = new AnswerObserver('events', true);
  const chunk = Buffer.from(token('x'));
  expect(observer.filter(chunk, 1)).toBe(chunk);
});

test('an error body that is no event stream reaches the client whole', () => {
  const body = Buffer.from('{"error":{"message":"no","code":400}}');
  expect(pass(new AnswerObserver('events', true), body, [5])).toEqual(body);
});

test('times: first byte, last token, and the role chunk is no token', () => {
  const observer = new AnswerObserver('events', false);
  observer.filter(Buffer.from(ROLE), 10);
  expect(observer.observed).toMatchObject({ ttftMs: 10, tokens: 0, lastTokenMs: undefined });
  observer.filter(Buffer.from(token('a') + token('b')), 30);
  observer.filter(Buffer.from(USAGE + DONE), 40);
  expect(observer.observed).toMatchObject({ ttftMs: 10, tokens: 2, lastTokenMs: 30, inBandError: false });
});

test('an error event inside the stream is noticed', () => {
  const observer = new AnswerObserver('events', true);
  observer.filter(Buffer.from(`${token('a')}data: {"error":{"message":"died"}}\n\n${DONE}`), 1);
  expect(observer.observed.inBandError).toBe(true);
});

test('a plain answer passes untouched and its usage is read at the end', () => {
  const observer = new AnswerObserver('whole', false);
  const body = Buffer.from(
    '{"choices":[{"text":"data: [DONE]\\n\\n"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}',
  );
  expect(pass(observer, body, [3, 20, 33])).toEqual(body);
  expect(observer.observed.usage?.outputTokens).toBe(4);
  expect(observer.observed.ttftMs).toBeUndefined();
});

describe('a stream of named events', () => {
  const event = (name: string, data: object): string =>
    `event: ${name}\ndata: ${JSON.stringify({ ...data, type: name })}\n\n`;
  const OPENING =
    event('response.created', { response: { usage: null } }) +
    event('response.in_progress', { response: { usage: null } });
  const ANSWER =
    event('response.output_text.delta', { delta: 'a' }) + event('response.output_text.delta', { delta: 'b' });
  const END = event('response.completed', { response: { usage: { input_tokens: 9, output_tokens: 2 } } });

  test('its opening is held back until there is a token, wherever packets split; every byte passes in the end', () => {
    const whole = Buffer.from(OPENING + ANSWER + END);
    for (let cut = 1; cut <= whole.length; cut++) {
      const observer = new AnswerObserver('events', false);
      expect(pass(observer, whole, [cut, cut + 9])).toEqual(whole);
      expect(observer.observed).toMatchObject({ tokens: 2, usage: { promptTokens: 9, outputTokens: 2 } });
    }
    const observer = new AnswerObserver('events', false);
    expect(observer.filter(Buffer.from(OPENING), 10)).toBeUndefined();
    expect(observer.observed.ttftMs).toBeUndefined();
    expect(observer.filter(Buffer.from(ANSWER), 30)?.toString()).toBe(OPENING + ANSWER);
    expect(observer.observed).toMatchObject({ ttftMs: 30, lastTokenMs: 30 });
    expect(observer.filter(Buffer.from(END), 40)?.toString()).toBe(END);
    expect(observer.finish(41)).toBeUndefined();
  });

  test('an opening that nothing follows passes at the end', () => {
    const observer = new AnswerObserver('events', false);
    expect(observer.filter(Buffer.from(OPENING), 10)).toBeUndefined();
    expect(observer.finish(20)?.toString()).toBe(OPENING);
  });

  test('an opening without end is passed on: what is held is bounded', () => {
    const observer = new AnswerObserver('events', false);
    const part = event('response.created', { response: { instructions: 'x'.repeat(300_000) } });
    let out = '';
    for (let i = 0; i < 5; i++) out += observer.filter(Buffer.from(part), i)?.toString() ?? '';
    expect(out).toBe(part.repeat(5));
  });

  test('the Messages API is told apart', () => {
    const observer = new AnswerObserver('events', false);
    observer.filter(Buffer.from(event('message_start', {}) + event('content_block_delta', {})), 1);
    expect(observer.surface).toBe('messages');
    const responses = new AnswerObserver('events', false);
    responses.filter(Buffer.from(event('response.created', {})), 1);
    expect(responses.surface).toBe('responses');
    expect(new AnswerObserver('events', false).surface).toBe('completions');
  });
});

describe('the fingerprint, which vLLM puts into the last event', () => {
  const final = (rest: string): string =>
    `data: {"choices":[{"index":0,"delta":{"content":"z"},"finish_reason":"length"}]${rest}}\n\n`;
  const FINGERPRINTED = USAGE.replace('}\n\n', ',"system_fingerprint":"vllm-0.29.0-1"}\n\n');

  test('moves from the usage event that is cut out to the last one with content', () => {
    const whole = Buffer.from(ROLE + token('a') + final('') + FINGERPRINTED + DONE);
    const without = ROLE + token('a') + final(',"system_fingerprint":"vllm-0.29.0-1"') + DONE;
    for (let cut = 0; cut <= whole.length; cut++)
      expect(pass(new AnswerObserver('events', true), whole, [cut, cut + 7]).toString()).toBe(without);
  });

  test('is not there: the last event passes as it is, also where the stream breaks off', () => {
    expect(pass(new AnswerObserver('events', true), Buffer.from(final('') + USAGE + DONE), []).toString()).toBe(
      final('') + DONE,
    );
    const observer = new AnswerObserver('events', true);
    expect(observer.filter(Buffer.from(final('')), 1)).toBeUndefined();
    expect(observer.rest()?.toString()).toBe(final(''));
    expect(observer.rest()).toBeUndefined();
  });

  test('two choices: the one that ends first is not held up until the other ends', () => {
    const observer = new AnswerObserver('events', true);
    expect(observer.filter(Buffer.from(final('')), 1)).toBeUndefined();
    expect(observer.filter(Buffer.from(token('a')), 2)?.toString()).toBe(final('') + token('a'));
  });
});
