import { describe, expect, test } from 'vitest';
import { classifyEvent, EventCutter, readUsage } from '../../../agent/wire/sse.ts';

const ROLE =
  'data: {"id":"a","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n';
const TOKEN = 'data: {"id":"a","choices":[{"index":0,"delta":{"content":"Grüße 👋 \\n\\n"},"finish_reason":null}]}\n\n';
const USAGE =
  'data: {"id":"a","choices":[],"usage":{"prompt_tokens":19,"total_tokens":21,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":16}},"metrics":{"time_to_first_token_ms":12.5,"queue_time_ms":2.5}}\n\n';
const DONE = 'data: [DONE]\n\n';

/** Of vLLM 0.29, as they came, but for what the second one says of the request. */
const MESSAGE_DELTA =
  'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"input_tokens":12,"output_tokens":3,"cache_creation_input_tokens":16,"cache_read_input_tokens":128}}\n\n';
const RESPONSE_COMPLETED =
  'event: response.completed\ndata: {"response":{"id":"resp_b0f2fea451d9d7b7","model":"tiny","object":"response","output":[{"id":"msg_97e3eb4761c5d427","content":[{"annotations":[],"text":"loouoken",' +
  '"type":"output_text","logprobs":null}],"role":"assistant","status":"completed","type":"message","phase":null}],"status":"incomplete","usage":{"input_tokens":156,"input_tokens_details":{"cached_tokens":144,' +
  '"input_tokens_per_turn":[],"cached_tokens_per_turn":[]},"output_tokens":3,"output_tokens_details":{"reasoning_tokens":0,"tool_output_tokens":0},"total_tokens":159}},"sequence_number":9,"type":"response.completed"}\n\n';

/** Events that a cutter finds in these chunks. */
function eventsOf(cutter: EventCutter, chunks: readonly Buffer[]): string[] {
  return chunks.flatMap((chunk) => cutter.push(chunk).events.map(String));
}

function inChunks(bytes: Buffer, size: number): Buffer[] {
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size));
}

describe.each([
  ['line feeds', (text: string) => text],
  ['CRLF', (text: string) => text.replaceAll('\n', '\r\n')],
])('EventCutter, lines ending with %s', (_name, form) => {
  const expected = [ROLE, TOKEN, USAGE, DONE].map(form);
  const stream = Buffer.from(expected.join(''));

  test('finds the same events wherever one packet boundary falls', () => {
    for (let cut = 0; cut <= stream.length; cut++) {
      const cutter = new EventCutter();
      expect(eventsOf(cutter, [stream.subarray(0, cut), stream.subarray(cut)])).toEqual(expected);
      expect(cutter.rest()).toBeUndefined();
    }
  });

  test('finds them byte by byte, and several in one chunk', () => {
    for (const size of [1, 2, 3, stream.length])
      expect(eventsOf(new EventCutter(), inChunks(stream, size))).toEqual(expected);
  });

  test('knows their kinds', () => {
    expect(new EventCutter().push(stream).kinds).toEqual(['role', 'token', 'usage', 'done']);
  });
});

describe('EventCutter', () => {
  test('hands out what followed the last separator, once', () => {
    const cutter = new EventCutter();
    cutter.push(Buffer.from(`${DONE}data: half`));
    expect(cutter.whole).toBe(false);
    expect(cutter.rest()?.toString()).toBe('data: half');
    expect(cutter.rest()).toBeUndefined();
  });

  test('whole says whether the events are the very chunk', () => {
    const cutter = new EventCutter();
    expect(cutter.push(Buffer.from(DONE)).whole).toBe(true);
    expect(cutter.push(Buffer.from('data: ha')).whole).toBe(false);
    expect(cutter.push(Buffer.from('lf\n\n')).whole).toBe(false);
    expect(cutter.push(Buffer.from(DONE)).whole).toBe(true);
  });

  test('passes an event that is too large to hold on in pieces, and says so', () => {
    const cutter = new EventCutter();
    const piece = Buffer.alloc(1024 * 1024, 0x61);
    let passed = 0;
    for (let i = 0; i < 10; i++) for (const event of cutter.push(piece).events) passed += event.length;
    expect(cutter.torn).toBe(true);
    expect(passed).toBeGreaterThanOrEqual(5 * piece.length);
    expect(passed + (cutter.rest()?.length ?? 0)).toBe(10 * piece.length);
  });
});

describe('classifyEvent', () => {
  test.each([
    ['role', ROLE],
    ['token', TOKEN],
    ['usage', USAGE],
    ['done', DONE],
    ['frame', ': ping\n\n'],
    ['error', 'data:{"error":{"message":"died"}}\n\n'],
    ['error', 'data: { "error":{"message":"died"}}\n\n'],
    ['error', 'data: {"object":"error","message":"died"}\n\n'],
    ['error', 'event:error\ndata: {}\n\n'],
    ['error', 'id: 7\nevent: error\ndata: {}\n\n'],
    ['frame', '\n'],
    ['error', 'data: {"error":{"message":"died","code":500}}\n\n'],
    ['error', 'data: {"error": {"message":"died"}}\n\n'],
    ['error', 'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"died"}}\n\n'],
    // Text that quotes the markers is escaped inside JSON, so it is a token all the same.
    ['token', 'data: {"choices":[{"delta":{"content":"\\"choices\\":[] \\"usage\\":{ data: [DONE]"}}]}\n\n'],
    [
      'token',
      'data: {"id":"a","choices":[{"text":"x","index":0}],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n',
    ],
    [
      'frame',
      'event: message_start\ndata: {"type":"message_start","message":{"role":"assistant","content":[],"usage":{"input_tokens":156,"output_tokens":0}}}\n\n',
    ],
    ['usage', MESSAGE_DELTA],
    ['done', 'event: message_stop\ndata: {"type":"message_stop"}\n\n'],
    [
      'frame',
      'event: response.created\ndata: {"response":{"id":"resp_1","usage":null},"sequence_number":0,"type":"response.created"}\n\n',
    ],
    [
      'token',
      'event: response.output_text.delta\ndata: {"content_index":0,"delta":"lo","type":"response.output_text.delta"}\n\n',
    ],
    ['frame', 'event: response.output_text.done\ndata: {"text":"lo","type":"response.output_text.done"}\n\n'],
    ['usage', RESPONSE_COMPLETED],
    ['error', 'event: response.failed\ndata: {"response":{"error":{"message":"died"}},"type":"response.failed"}\n\n'],
    ['frame', 'event: '],
    ['token', 'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"x"}}\n\n'],
  ])('%s: %s', (kind, event) => {
    expect(classifyEvent(Buffer.from(event))).toBe(kind);
  });
});

describe('readUsage', () => {
  test('reads events, whole answers and the names of the Messages API', () => {
    expect(readUsage(USAGE)).toEqual({ promptTokens: 19, outputTokens: 2, cachedTokens: 16, engineTtftMs: 15 });
    expect(readUsage('{"usage":{"input_tokens":5,"output_tokens":6}}')).toEqual({
      promptTokens: 5,
      outputTokens: 6,
      cachedTokens: undefined,
      engineTtftMs: undefined,
    });
    expect(readUsage('{"usage":{"prompt_tokens":5,"prompt_tokens_details":null}}')?.cachedTokens).toBeUndefined();
  });

  test('the prompt of the Messages API is the sum of what was cached, what is now, and the rest', () => {
    expect(readUsage(MESSAGE_DELTA)).toEqual({
      promptTokens: 156,
      outputTokens: 3,
      cachedTokens: 128,
      engineTtftMs: undefined,
    });
    const answer =
      '{"type":"message","usage":{"input_tokens":12,"output_tokens":3,"cache_creation_input_tokens":0,"cache_read_input_tokens":144}}';
    expect(readUsage(answer)).toEqual({
      promptTokens: 156,
      outputTokens: 3,
      cachedTokens: 144,
      engineTtftMs: undefined,
    });
    // vLLM before it counted what it puts into the cache.
    expect(readUsage('{"usage":{"input_tokens":28,"output_tokens":3,"cache_read_input_tokens":128}}')).toMatchObject({
      promptTokens: 156,
      cachedTokens: 128,
    });
  });

  test('the Responses API has usage in its response, and in a plain answer beside the rest', () => {
    const usage = { promptTokens: 156, outputTokens: 3, cachedTokens: 144, engineTtftMs: undefined };
    expect(readUsage(RESPONSE_COMPLETED)).toEqual(usage);
    expect(
      readUsage(
        '{"object":"response","usage":{"input_tokens":156,"input_tokens_details":{"cached_tokens":144},"output_tokens":3}}',
      ),
    ).toEqual(usage);
  });

  test.each([
    '',
    'data: [DONE]',
    'event: ping',
    'event: response.created\ndata: {"response":{"usage":null}}\n\n',
    '{"usage":null}',
    'null',
    '[]',
    '{',
    '{"usage":7}',
  ])('none in %j', (text) => {
    expect(readUsage(text)).toBeUndefined();
  });

  test('counts that are no counts are left out: they travel in samples, whose schema refuses them', () => {
    const usage = readUsage(
      '{"usage":{"prompt_tokens":-1,"completion_tokens":2.5,"prompt_tokens_details":{"cached_tokens":"7"}}}',
    );
    expect(usage).toEqual({
      promptTokens: undefined,
      outputTokens: undefined,
      cachedTokens: undefined,
      engineTtftMs: undefined,
    });
  });
});
