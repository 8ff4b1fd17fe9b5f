import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readTrace, type TraceFormatName } from '../../../sim/workloads/index.ts';

const plain = { seed: 1, lengthScale: 1, outputScale: 1 };
let dir = '';
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'lodestar-trace-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function write(name: string, content: string | Buffer): string {
  const file = join(dir, name);
  writeFileSync(file, content);
  return file;
}

const AZURE =
  'TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,0\r\n';
const SERVEGEN = 't_s,client,input_tokens,output_tokens\n0.5,35,42,2639\n0.123,15,17560,1318\n';
const TIDY =
  'request_id,start_us,pod,input_tokens,output_tokens,all\n1,5000,p,800,100,"{""a"": 1, ""b"": 2}"\n0,-4000,p,1939,100,"{}"\n2,6000,p,0,0,{}\n';
const MOONCAKE = '{"timestamp": 5, "input_length": 600, "output_length": 7, "hash_ids": [4, 9]}\n';

const call = (session: string, ms: number, input: string, output: string): string =>
  JSON.stringify({ timestamp: 1_760_000_000_000_000 + ms * 1000, input, output, session_id: session });
const FIRST = 'x'.repeat(100);
const SESSION = [
  call('s', 900, `${FIRST}${'y'.repeat(60)}`, 'four'),
  call('s', 0, FIRST, 'fivee'),
  call('s', 100, '', ''),
].join('\n');

/** A ustar archive, as `tar` writes it. */
function tar(files: Record<string, string>): Buffer {
  const blocks: Buffer[] = [];
  for (const [name, text] of Object.entries(files)) {
    const header = Buffer.alloc(512);
    header.write(name, 0);
    header.write(Buffer.byteLength(text).toString(8).padStart(11, '0'), 124);
    header.write('0', 156);
    header.write('ustar\u000000', 257);
    const bytes = Buffer.alloc(Math.ceil(Buffer.byteLength(text) / 512) * 512);
    bytes.write(text);
    blocks.push(header, bytes);
  }
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}

describe('formats are recognised by their content', () => {
  it.each([
    [
      'azure',
      AZURE,
      [
        [0, 374, 44, undefined],
        [4314.579, 396, 1, undefined],
      ],
    ],
    [
      'servegen',
      SERVEGEN,
      [
        [123, 17560, 1318, '15'],
        [500, 42, 2639, '35'],
      ],
    ],
    [
      'tidy',
      TIDY,
      [
        [0, 1939, 100, undefined],
        [9, 800, 100, undefined],
      ],
    ],
    ['mooncake', MOONCAKE, [[5, 600, 7, undefined]]],
    [
      'lmcache',
      SESSION,
      [
        [0, 25, 2, undefined],
        [900, 40, 1, undefined],
      ],
    ],
  ] as const)('%s, plain and gzip', (format, text, expected) => {
    for (const file of [write('a', text), write('b', gzipSync(text))]) {
      const { requests } = readTrace(file, plain);
      expect(
        requests.map((one) => [Math.round(one.arrivalMs * 1000) / 1000, one.inputTokens, one.outputTokens, one.client]),
      ).toEqual(expected);
      expect(readTrace(file, { ...plain, format }).requests).toEqual(requests);
    }
  });

  it('asks for a format where there is none to see', () => {
    expect(() => readTrace(write('a', 'hello\n'), plain)).toThrow(/--format mooncake\|azure\|servegen\|lmcache\|tidy/);
    expect(() => readTrace(write('a', '\n \n'), plain)).toThrow('holds no request');
    expect(() => readTrace(join(dir, 'none'), plain)).toThrow(/cannot read the trace .*none/);
  });
});

describe('lengths and sharing', () => {
  it('shares nothing where the trace says nothing', () => {
    for (const text of [AZURE, SERVEGEN, TIDY]) {
      const { requests } = readTrace(write('a', text), { ...plain, lengthScale: 0.5, outputScale: 0.25 });
      expect(new Set(requests.flatMap((one) => one.hashIds)).size).toBe(requests.length);
      for (const one of requests) expect(Math.round(one.blockTokens)).toBe(one.inputTokens);
    }
    expect(
      readTrace(write('a', SERVEGEN), { ...plain, lengthScale: 0.5, outputScale: 0.25 }).requests[0],
    ).toMatchObject({ inputTokens: 8780, outputTokens: 330 });
  });

  it('selects a span, drops long prompts and stops', () => {
    const file = write('a', SERVEGEN);
    expect(readTrace(file, { ...plain, startMs: 200 }).requests).toMatchObject([{ arrivalMs: 300 }]);
    expect(readTrace(file, { ...plain, durationMs: 200 }).requests).toHaveLength(1);
    expect(readTrace(file, { ...plain, maxPromptTokens: 1000 })).toMatchObject({
      droppedTooLong: 1,
      requests: [{ inputTokens: 42 }],
    });
    expect(readTrace(file, { ...plain, maxRequests: 1 }).requests).toHaveLength(1);
  });
});

describe('agent sessions', () => {
  it('share the full blocks of the prompt before', () => {
    const [first, second] = readTrace(write('a', SESSION), plain).requests;
    expect(first).toMatchObject({ inputTokens: 25, blockTokens: 16 });
    expect(first?.hashIds).toHaveLength(2);
    expect(second?.hashIds).toHaveLength(3);
    expect(second?.hashIds[0]).toBe(first?.hashIds[0]);
    expect(second?.hashIds[1]).not.toBe(first?.hashIds[1]);
  });

  it('come from an archive or a folder, each at a time of its own', () => {
    const files = {
      'web/a.jsonl': SESSION,
      'web/notes.txt': 'not a trace',
      'desk/b.jsonl': call('t', 0, FIRST, ''),
      'desk/empty.jsonl': '',
    };
    const archived = readTrace(write('a.tar.gz', gzipSync(tar(files))), plain).requests;
    mkdirSync(join(dir, 'all/web'), { recursive: true });
    mkdirSync(join(dir, 'all/desk'));
    for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, 'all', name), text);
    const folder = readTrace(join(dir, 'all'), plain).requests;
    for (const requests of [archived, folder]) {
      expect(requests.map((one) => one.client).toSorted()).toEqual(['desk', 'web', 'web']);
      expect(new Set(requests.filter((one) => one.inputTokens === 25).map((one) => one.hashIds.join())).size).toBe(1);
      expect(requests[0]?.arrivalMs).toBe(0);
    }
    expect(readTrace(join(dir, 'all'), plain).requests).toEqual(folder);
    expect(readTrace(join(dir, 'all'), { ...plain, seed: 3 }).requests).not.toEqual(folder);
  });

  it('says where an archive is broken', () => {
    const archive = tar({ 'a.jsonl': SESSION });
    expect(() => readTrace(write('a.tar', archive.subarray(0, 600)), plain)).toThrow(
      /a\.tar: the tar archive is broken at byte 0/,
    );
  });
});

describe('errors name file, line and field', () => {
  const header = 'TIMESTAMP,ContextTokens,GeneratedTokens';
  it.each<[TraceFormatName, string, string]>([
    [
      'azure',
      `${header}\n2023-11-16 18:15:46,5,5\nyesterday,5,5`,
      'bad line 3: TIMESTAMP must be a time such as 2023-11-16 18:15:46.6805900, found "yesterday"',
    ],
    [
      'azure',
      `${header}\n2023-11-16 18:15:46,,5`,
      'bad line 2: ContextTokens must be a number of at least 1, found ""',
    ],
    ['azure', `${header}\n2023-11-16 18:15:46,7`, 'bad line 2: has 2 columns where the header has 3'],
    ['azure', 'TIMESTAMP,Tokens\n', 'bad line 1: the header has no column ContextTokens, GeneratedTokens'],
    [
      'servegen',
      't_s,client,input_tokens,output_tokens\n1,a,5,many',
      'bad line 2: output_tokens must be a number of at least 0, found "many"',
    ],
    ['tidy', 'start_us,input_tokens,output_tokens\nx,5,5', 'bad line 2: start_us must be a number, found "x"'],
    [
      'lmcache',
      `${SESSION}\n{"timestamp": 1, "output": "", "session_id": "s"}`,
      'bad line 4: input must be a text, found nothing',
    ],
    [
      'lmcache',
      '{"timestamp": 1, "input": 7, "output": "", "session_id": "s"}',
      'bad line 1: input must be a text, found 7',
    ],
  ])('%s: %j', (format, text, message) => {
    expect(() => readTrace(write('bad', text), { ...plain, format })).toThrow(message);
  });
});
