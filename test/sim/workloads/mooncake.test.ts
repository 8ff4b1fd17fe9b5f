import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bundledTrace, pace, promptText, readMooncake } from '../../../sim/workloads/index.ts';

const plain = { seed: 1, lengthScale: 1, outputScale: 1 };
let dir = '';
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'lodestar-trace-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function write(rows: (object | string)[], compress = false): string {
  const file = join(dir, 'trace');
  const text = rows.map((row) => (typeof row === 'string' ? row : JSON.stringify(row))).join('\n');
  writeFileSync(file, compress ? gzipSync(text) : text);
  return file;
}

const row = (timestamp: number, input: number, ids?: number[]): object => ({
  timestamp,
  input_length: input,
  output_length: 10,
  hash_ids: ids ?? Array.from({ length: Math.ceil(input / 512) }, (_, at) => at),
});

describe('reader', () => {
  it('reads the bundled trace, spread over its grid and in order', () => {
    const { requests } = readMooncake(bundledTrace, { ...plain, lengthScale: 0.125 });
    expect(requests).toHaveLength(1750);
    expect(requests.every((request, at) => at === 0 || request.arrivalMs >= (requests[at - 1]?.arrivalMs ?? 0))).toBe(
      true,
    );
    expect(new Set(requests.map((request) => request.arrivalMs % 3000)).size).toBeGreaterThan(1700);
    expect(readMooncake(bundledTrace, { ...plain, lengthScale: 0.125 }).requests).toEqual(requests);
    expect(readMooncake(bundledTrace, { ...plain, seed: 2 }).requests[0]?.arrivalMs).not.toBe(requests[0]?.arrivalMs);
  });

  it('leaves other timestamps alone, plain or gzip', () => {
    for (const compress of [false, true]) {
      const { requests } = readMooncake(write([row(500, 5), row(10, 600), ''], compress), plain);
      expect(requests).toEqual([
        { arrivalMs: 10, inputTokens: 600, outputTokens: 10, hashIds: [0, 1], blockTokens: 512 },
        { arrivalMs: 500, inputTokens: 5, outputTokens: 10, hashIds: [0], blockTokens: 512 },
      ]);
    }
  });

  it('selects, scales, drops and counts', () => {
    const file = write([row(1, 8), row(1000, 800), row(1500, 8000), row(2000, 16), row(9000, 8)]);
    const trace = readMooncake(file, {
      seed: 1,
      lengthScale: 0.125,
      outputScale: 0.5,
      startMs: 1000,
      durationMs: 5000,
      maxPromptTokens: 100,
    });
    expect(
      trace.requests.map(({ arrivalMs, inputTokens, outputTokens }) => [arrivalMs, inputTokens, outputTokens]),
    ).toEqual([
      [0, 100, 5],
      [1000, 2, 5],
    ]);
    expect(trace.droppedTooLong).toBe(1);
    expect(readMooncake(file, { ...plain, maxRequests: 2 }).requests).toHaveLength(2);
  });

  it.each([
    ['{"timestamp":', 'line 2: is not JSON'],
    ['[]', 'line 2: is not an object'],
    [{ ...row(0, 5), timestamp: 'x' }, 'line 2: timestamp must be a number of at least 0, found "x"'],
    [{ ...row(0, 5), input_length: 0 }, 'line 2: input_length must be'],
    [
      { timestamp: 0, input_length: 5, hash_ids: [1] },
      'line 2: output_length must be a number of at least 0, found nothing',
    ],
    [row(0, 600, [1]), 'line 2: hash_ids must be 2 integers'],
  ])('names line and field: %j', (bad, message) => {
    expect(() => readMooncake(write([row(1, 5), bad]), plain)).toThrow(message);
  });

  it('refuses an empty or absent file', () => {
    expect(() => readMooncake(write([]), plain)).toThrow('holds no request');
    expect(() => readMooncake(join(dir, 'none'), plain)).toThrow('cannot read the trace');
  });
});

it('paces by speed or to a mean rate', () => {
  const requests = [100, 300, 1100].map((arrivalMs) => ({ arrivalMs, inputTokens: 1, outputTokens: 1, hashIds: [0] }));
  expect(pace(requests, { speed: 2 }).map((request) => request.arrivalMs)).toEqual([0, 100, 500]);
  expect(pace(requests, { rate: 4 }).map((request) => request.arrivalMs)).toEqual([0, 100, 500]);
  expect(pace(requests.slice(0, 1), { rate: 4 })[0]?.arrivalMs).toBe(0);
  expect(pace([], { rate: 4 })).toEqual([]);
});

describe('prompt text', () => {
  it('shares exactly the blocks whose ids are shared', () => {
    const a = promptText({ hashIds: [0, 7, 8], inputTokens: 160 }, 0.125);
    const b = promptText({ hashIds: [0, 7, 9], inputTokens: 170 }, 0.125);
    let shared = 0;
    while (a[shared] === b[shared]) shared++;
    expect(Math.floor(shared / 4)).toBeGreaterThanOrEqual(128);
    expect(Math.floor(shared / 4)).toBeLessThan(132);
    expect(promptText({ hashIds: [0, 7, 8], inputTokens: 160 }, 0.125)).toBe(a);
  });

  it('has four bytes for each token of the scaled length', () => {
    for (const request of readMooncake(bundledTrace, { ...plain, lengthScale: 0.125, maxRequests: 200 }).requests) {
      expect(promptText(request, 0.125)).toHaveLength(request.inputTokens * 4);
    }
    expect(promptText({ hashIds: [3], inputTokens: 2 }, 0.125)).toMatch(/^ [a-z]{3} [a-z]{3}$/);
  });

  it('gives different ids different words', () => {
    const blocks = Array.from({ length: 2000 }, (_, id) => promptText({ hashIds: [id], inputTokens: 64 }, 0.125));
    expect(new Set(blocks.map((text) => text.slice(0, 64))).size).toBe(2000);
  });
});
