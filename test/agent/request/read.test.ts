import { describe, expect, test } from 'vitest';
import { spliced } from '../../../agent/request/json-splice.ts';
import type { ClientRequest } from '../../../agent/request/read.ts';
import { readRequest } from '../../helpers/read-request.ts';

const CHAT = '/v1/chat/completions';
const JSON_TYPE = { 'content-type': 'application/json' };

function read(body: unknown, path = CHAT, headers: Record<string, string> = {}): ClientRequest {
  return readRequest(path, { ...JSON_TYPE, ...headers }, typeof body === 'string' ? body : JSON.stringify(body));
}

describe('fields', () => {
  test('what routing needs is read, everything else is left alone', () => {
    const body =
      '{"model":"m","messages":[{"role":"user","content":"hi"}],"max_completion_tokens":7,"max_tokens":9,"n":2,"cache_salt":"s","priority":3,"big":12345678901234567890}';
    const request = read(body, CHAT, { 'x-slo-ttft-ms': '250', 'x-slo-tpot-ms': 'x' });
    expect(request).toMatchObject({
      model: 'm',
      stream: false,
      usageSplice: undefined,
      maxTokens: 7,
      sequences: 2,
      cacheSalt: 's',
      priority: 3,
      sloTtftMs: 250,
      sloTpotMs: undefined,
    });
    expect(Buffer.concat(request.body).toString()).toBe(body);
  });

  test('a header outranks the body for priority; nonsense counts as absent', () => {
    expect(read({ priority: 3 }, CHAT, { 'x-vllm-priority': '-2' }).priority).toBe(-2);
    expect(read({ priority: 'high', n: -4, max_tokens: 'x', model: 7, stream: 'no', cache_salt: 1 })).toMatchObject({
      priority: 0,
      sequences: 1,
      maxTokens: 0,
      model: undefined,
      stream: false,
      cacheSalt: '',
    });
  });

  test.each([
    ['true', true],
    ['1', true],
    ['1.0', true],
    ['"true"', true],
    ['"YES"', true],
    ['"1"', true],
    ['"on"', true],
    ['"t"', true],
    ['"Y"', true],
    ['false', false],
    ['0', false],
    ['2', false],
    ['null', false],
    ['"no"', false],
    ['"off"', false],
    ['" true"', false],
    ['{}', false],
    ['[true]', false],
  ])('stream: %s is what vLLM takes it for', (text, stream) => {
    expect(read(`{"stream":${text}}`).stream).toBe(stream);
    const usage = read(`{"stream":true,"stream_options":{"include_usage":${text}}}`).usageSplice;
    expect(usage === undefined).toBe(stream);
  });

  test('numbers in strings are numbers to vLLM', () => {
    expect(read({ max_tokens: '12', n: ' 2 ', priority: '-3' })).toMatchObject({
      maxTokens: 12,
      sequences: 2,
      priority: -3,
    });
  });

  test('values of odd kinds are never an error', () => {
    const odd = { toString: 1, valueOf: 'x' };
    const request = read({
      model: 'm',
      role: odd,
      prompt: odd,
      priority: odd,
      user: odd,
      n: odd,
      stream_options: odd,
      stream: true,
      messages: [{ role: odd, content: odd, tool_calls: odd }],
      tools: odd,
    });
    expect(request).toMatchObject({ model: 'm', priority: 0, sequences: 1, stream: true });
  });

  test.each([undefined, '', 'application', 'json; charset=', 'text/plain', 'application/x-www-form-urlencoded'])(
    'content-type %j says nothing about a body that looks like JSON',
    (type) => {
      expect(readRequest(CHAT, type === undefined ? {} : { 'content-type': type }, '{"model":"m"}').model).toBe('m');
    },
  );

  test('a byte order mark is taken, as Python takes it', () => {
    expect(read('\uFEFF {"model":"m","stream":true}')).toMatchObject({ model: 'm', usageSplice: { start: 5, end: 5 } });
  });

  test('absurd numbers stay finite as features', () => {
    const request = read({ prompt: ['a', 'b'], n: 1e308, max_tokens: 1e308 }, '/v1/completions');
    expect(request.sequences).toBeLessThanOrEqual(1e9);
    expect(request.maxTokens).toBeLessThanOrEqual(1e9);
  });
});

describe('stream_options', () => {
  test.each([
    ['absent', '{"stream":true}', '{"stream_options":{"include_usage":true},"stream":true}', true],
    ['null', '{"stream":true,"stream_options":null}', '{"stream":true,"stream_options":{"include_usage":true}}', true],
    [
      'declined',
      '{"stream":true,"stream_options":{"include_usage":false,"x":1}}',
      '{"stream":true,"stream_options":{"include_usage":true,"x":1}}',
      true,
    ],
    [
      'wanted',
      '{"stream":true,"stream_options":{"include_usage":true}}',
      '{"stream":true,"stream_options":{"include_usage":true}}',
      false,
    ],
    ['malformed', '{"stream":true,"stream_options":7}', '{"stream":true,"stream_options":7}', false],
    [
      'continuous without usage',
      '{"stream":true,"stream_options":{"continuous_usage_stats":true}}',
      '{"stream":true,"stream_options":{"continuous_usage_stats":false,"include_usage":true}}',
      true,
    ],
    ['no stream', '{"stream":false}', '{"stream":false}', false],
  ])('%s', (_name, body, sent, added) => {
    const request = read(body);
    expect(Buffer.concat(spliced(request.body, request.usageSplice)).toString()).toBe(sent);
    expect(request.usageSplice !== undefined).toBe(added);
  });

  test('is added for chat and completions only', () => {
    expect(read('{"stream":true}', '/v1/completions?x=1').usageSplice).toBeDefined();
    for (const path of ['/v1/responses', '/v1/messages', '/v1/completions/render'])
      expect(read('{"stream":true}', path).usageSplice).toBeUndefined();
  });
});

describe('canonical prompt', () => {
  const system = { role: 'system', content: 'You are terse.' };
  const first = { role: 'user', content: 'What is a lodestar? ü👋' };
  const answer = { role: 'assistant', content: 'A star.' };
  const call = {
    role: 'assistant',
    content: null,
    tool_calls: [{ id: 'c1', type: 'function', function: { name: 'f', arguments: '{}' } }],
  };
  const tools = [{ type: 'function', function: { name: 'f', parameters: {} } }];

  function extendsIt(longer: ClientRequest, shorter: ClientRequest): boolean {
    return (
      longer.prompt.length > shorter.prompt.length &&
      longer.prompt.subarray(0, shorter.prompt.length).equals(shorter.prompt)
    );
  }

  test('a later turn of a chat begins with the bytes of the earlier one', () => {
    const turns = [
      [system, first],
      [system, first, answer, { role: 'user', content: 'Why?' }],
      [
        system,
        first,
        answer,
        { role: 'user', content: 'Why?' },
        call,
        { role: 'tool', tool_call_id: 'c1', content: '42' },
      ],
    ];
    const prompts = turns.map((messages) => read({ model: 'm', messages, tools }));
    expect(extendsIt(prompts[1]!, prompts[0]!)).toBe(true);
    expect(extendsIt(prompts[2]!, prompts[1]!)).toBe(true);
  });

  test('so does one of the Messages API and one of the Responses API, also when it began with a plain string', () => {
    const messages = (list: object[]): ClientRequest => read({ system: 'Terse.', messages: list }, '/v1/messages');
    expect(extendsIt(messages([first, answer, first]), messages([first]))).toBe(true);
    const responses = (input: unknown): ClientRequest => read({ instructions: 'Terse.', input }, '/v1/responses');
    expect(extendsIt(responses([first, answer, first]), responses([first]))).toBe(true);
    expect(extendsIt(responses([first, answer, first]), responses(first.content))).toBe(true);
  });

  test('instructions, tools, roles and text each tell prompts apart', () => {
    const variants = [
      read({ input: 'x' }, '/v1/responses'),
      read({ input: 'x', instructions: 'a' }, '/v1/responses'),
      read({ input: 'x', instructions: 'b' }, '/v1/responses'),
      read({ messages: [first] }),
      read({ messages: [first], tools }),
      read({ messages: [{ ...first, role: 'system' }] }),
      read({ messages: [{ ...first, content: 'other' }] }),
      read({ messages: [call] }),
    ];
    expect(new Set(variants.map((one) => one.prompt.toString('hex'))).size).toBe(variants.length);
  });

  test('text parts read as their text; images count by identity, not by the size of their base64', () => {
    expect(
      read({
        messages: [
          {
            role: 'user',
            content: [
              { type: 'text', text: 'ab' },
              { type: 'text', text: 'cd' },
            ],
          },
        ],
      }).prompt,
    ).toEqual(read({ messages: [{ role: 'user', content: 'abcd' }] }).prompt);
    const image = (byte: string): ClientRequest =>
      read({
        messages: [
          {
            role: 'user',
            content: [{ type: 'image_url', image_url: { url: `data:image/png;base64,${byte.repeat(100_000)}` } }],
          },
        ],
      });
    expect(image('A').prompt.length).toBeLessThan(500);
    expect(image('A').prompt).toEqual(image('A').prompt);
    expect(image('A').prompt).not.toEqual(image('B').prompt);
  });

  test('completions: text, token ids and batches of each', () => {
    const completion = (prompt: unknown): ClientRequest => read({ prompt, n: 2 }, '/v1/completions');
    expect(completion('abc')).toMatchObject({ prompt: Buffer.from('abc'), promptIsTokens: false, sequences: 2 });
    expect(completion([1, 70_000])).toMatchObject({
      prompt: Buffer.from([1, 0, 0, 0, 0x70, 0x11, 1, 0]),
      promptIsTokens: true,
      sequences: 2,
    });
    expect(completion(['ab', 'c', 'd'])).toMatchObject({
      prompt: Buffer.from('ab'),
      promptIsTokens: false,
      sequences: 6,
    });
    expect(completion([[5], [6]])).toMatchObject({
      prompt: Buffer.from([5, 0, 0, 0]),
      promptIsTokens: true,
      sequences: 4,
    });
    for (const odd of [[], [null], 7, null, {}]) expect(completion(odd).prompt.length).toBe(0);
  });

  test.each([
    '/tokenize',
    '/detokenize',
    '/v1/messages/count_tokens',
    '/v1/chat/completions/render',
    '/v1/completions/render?x=1',
  ])('%s: no engine computes what it holds', (path) => {
    expect(read({ model: 'm', prompt: 'abc', messages: [{ role: 'user', content: 'abc' }] }, path)).toMatchObject({
      model: 'm',
      prompt: Buffer.alloc(0),
    });
  });

  test("messages that are no messages are the engine's to refuse", () => {
    expect(read({ messages: [null, 7, 'x', { content: 5 }] }).prompt.length).toBeGreaterThan(0);
    expect(read({ messages: 'x' }).prompt.length).toBe(0);
  });
});

describe("bad bodies are the engine's to refuse", () => {
  test.each(['{', '', 'null', '[]', '7', '"x"', '{"a":1}}', 'a=b', '\uFEFF{}', '{"model":NaN}'])(
    '%j passes as it is',
    (body) => {
      expect(read(body)).toMatchObject({
        body: body === '' ? [] : [Buffer.from(body)],
        model: undefined,
        stream: false,
        prompt: Buffer.alloc(0),
        sequences: 1,
      });
    },
  );

  test('depth that would exhaust a stack', () => {
    const deep = `${'['.repeat(200_000)}${']'.repeat(200_000)}`;
    expect(read(`{"messages":[],"tools":${deep},"model":"m"}`)).toMatchObject({ model: 'm', promptBytes: 400_000 });
    expect(read(`{"messages":[{"role":"user","content":[${deep}]}],"model":"m"}`)).toMatchObject({
      model: 'm',
      promptBytes: 70,
    });
    expect(
      read(`{"stream":true,"model":"m","stream_options":{"x":${'['.repeat(30_000)}${']'.repeat(30_000)}}}`),
    ).toMatchObject({ model: 'm', usageSplice: undefined });
  });

  test('forms and audio are not JSON and pass as they are', () => {
    const body = Buffer.from('--x\r\n');
    expect(
      readRequest('/v1/audio/transcriptions', { 'content-type': 'multipart/form-data; boundary=x' }, body).body,
    ).toEqual([body]);
  });
});
