import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, expect, it, vi } from 'vitest';
import { fit } from '../../cli/fit.ts';
import { countedCsv, serve } from '../brain/fit/synthetic-log.ts';

const dir = mkdtempSync(join(tmpdir(), 'lodestar-fit-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
afterEach(() => vi.restoreAllMocks());

function capture(stream: NodeJS.WriteStream): string[] {
  const texts: string[] = [];
  vi.spyOn(stream, 'write').mockImplementation((text) => texts.push(String(text)) > 0);
  return texts;
}

it('prints a table with a baseline beside it and writes the figures', async () => {
  const log = join(dir, 'log.csv.gz');
  const json = join(dir, 'out.json');
  writeFileSync(log, gzipSync(countedCsv(serve(600))));
  const out = capture(process.stdout);
  expect(await fit({ log, json })).toBe(0);
  const text = out.join('');
  expect(text).toMatch(
    /600 requests: learned from \d+ that ended in the first 70 % of the time, tested on the \d+ that arrived later/,
  );
  expect(text).toContain('no arrival times');
  for (const row of ['prompt size alone', 'step-time law alone', 'law and net (Lodestar)']) expect(text).toContain(row);
  const figure = expect.any(Number);
  expect(JSON.parse(readFileSync(json, 'utf8'))).toMatchObject({
    n: 600,
    trainedOn: figure,
    testedOn: figure,
    ttft: { medianApe: figure, p90Ape: figure, spearman: figure, p90Coverage: figure },
  });
});

it('ends with 1 and one line for a log that cannot be used', async () => {
  const log = join(dir, 'bad.csv');
  writeFileSync(log, 'a,b\n1,2\n');
  const errors = capture(process.stderr);
  expect(await fit({ log })).toBe(1);
  expect(errors.join('')).toMatch(/^lodestar: .*bad\.csv, line 1: .*\n$/);
});
