import { describe, expect, test } from 'vitest';
import { classifyEvent, readUsage, SseReader } from '../../agent/sse.ts';

const ROLE = 'data: {"id":"a","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n';
const TOKEN = 'data: {"id":"a","choices":[{"index":0,"delta":{"content":"Grüße 👋 \\n\\n"},"finish_reason":null}]}\n\n';
const USAGE = 'data: {"id":"a","choices":[],"usage":{"prompt_tokens":19,"total_tokens":21,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":16}},"metrics":{"time_to_first_token_ms":12.5,"queue_time_ms":2.5}}\n\n';
const DONE = 'data: [DONE]\n\n';

describe('SseReader', () => {
  const stream = Buffer.from(ROLE + TOKEN + USAGE + DONE);
  const expected = [ROLE, TOKEN, USAGE, DONE];

  test('finds the same events wherever one packet boundary falls', () => {
    for (let cut = 0; cut <= stream.length; cut++) {
      const reader = new SseReader();
      const events: string[] = [];
      const take = (event: Buffer): void => void events.push(event.toString());
      reader.push(stream.subarray(0, cut), take);
      reader.push(stream.subarray(cut), take);
      expect(events).toEqual(expected);
      expect(reader.flush()).toBeUndefined();
    }
  });

  test('finds them byte by byte, and several in one chunk', () => {
    for (const size of [1, 2, 3, stream.length]) {
      const reader = new SseReader();
      const events: string[] = [];
      for (let at = 0; at < stream.length; at += size) reader.push(stream.subarray(at, at + size), (event) => void events.push(event.toString()));
      expect(events).toEqual(expected);
    }
  });

  test('hands out what followed the last separator, once', () => {
    const reader = new SseReader();
    reader.push(Buffer.from(`${DONE}data: half`), () => undefined);
    expect(reader.flush()?.toString()).toBe('data: half');
    expect(reader.flush()).toBeUndefined();
  });
});

describe('classifyEvent', () => {
  test.each([
    ['role', ROLE],
    ['token', TOKEN],
    ['usage', USAGE],
    ['done', DONE],
    ['error', 'data: {"error":{"message":"died","code":500}}\n\n'],
    ['error', 'data: {"error": {"message":"died"}}\n\n'],
    ['error', 'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"died"}}\n\n'],
    // Text that quotes the markers is escaped inside JSON, so it is a token all the same.
    ['token', 'data: {"choices":[{"delta":{"content":"\\"choices\\":[] \\"usage\\":{ data: [DONE]"}}]}\n\n'],
    ['token', 'data: {"id":"a","choices":[{"text":"x","index":0}],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'],
    ['token', 'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"x"}}\n\n'],
  ])('%s: %s', (kind, event) => {
    expect(classifyEvent(Buffer.from(event))).toBe(kind);
  });
});

describe('readUsage', () => {
  test('reads events, whole answers and the names of the Messages API', () => {
    expect(readUsage(USAGE)).toEqual({ promptTokens: 19, outputTokens: 2, cachedTokens: 16, engineTtftMs: 15 });
    expect(readUsage('{"usage":{"input_tokens":5,"output_tokens":6}}')).toEqual({ promptTokens: 5, outputTokens: 6, cachedTokens: undefined, engineTtftMs: undefined });
    expect(readUsage('{"usage":{"prompt_tokens":5,"prompt_tokens_details":null}}')?.cachedTokens).toBeUndefined();
  });

  test.each(['', 'data: [DONE]', '{"usage":null}', 'null', '[]', '{', '{"usage":7}'])('none in %j', (text) => {
    expect(readUsage(text)).toBeUndefined();
  });

  test('counts that are no counts are left out: they travel in samples, whose schema refuses them', () => {
    const usage = readUsage('{"usage":{"prompt_tokens":-1,"completion_tokens":2.5,"prompt_tokens_details":{"cached_tokens":"7"}}}');
    expect(usage).toEqual({ promptTokens: undefined, outputTokens: undefined, cachedTokens: undefined, engineTtftMs: undefined });
  });
});
