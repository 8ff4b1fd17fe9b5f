import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { afterEach, expect, it, vi } from 'vitest';
import { progressLine, resultText } from '../../cli/replay-report.ts';
import { addReplay } from '../../cli/replay.ts';
import type { LoadResult } from '../../sim/workloads/index.ts';
import { answerWell, startServer } from '../sim/workloads/sse-server.ts';

const dir = mkdtempSync(join(tmpdir(), 'lodestar-replay-'));
afterEach(() => {
  vi.restoreAllMocks();
  process.exitCode = undefined;
});

async function run(...flags: string[]): Promise<number> {
  const program = new Command().exitOverride();
  addReplay(program);
  for (const command of program.commands) command.exitOverride().configureOutput({ writeErr: () => {} });
  await program.parseAsync(['replay', ...flags], { from: 'user' });
  const code = Number(process.exitCode);
  process.exitCode = undefined;
  return code;
}

it('replays the bundled trace with the first model and writes its figures', async () => {
  const server = await startServer((_, response) => answerWell(response, 2, 25));
  const file = join(dir, 'out.json');
  try {
    const code = await run(
      '--url',
      server.url,
      '--rate',
      '2000',
      '--max-requests',
      '20',
      '--max-prompt',
      '2000',
      '--json',
      file,
      '--quiet',
    );
    expect(code).toBe(0);
    const result = JSON.parse(readFileSync(file, 'utf8')) as LoadResult & {
      flags: { model: string; lengthScale: number };
    };
    expect(result).toMatchObject({
      sent: 20,
      succeeded: 20,
      kvHitRatio: 0.25,
      flags: { model: 'm', lengthScale: 0.125 },
    });
    expect(resultText(result)).toContain('20 sent, 20 succeeded, 0 failed');
    expect(resultText(result)).toContain('cached: 25.0 %');
  } finally {
    await server.close();
    rmSync(dir, { recursive: true, force: true });
  }
});

it('ends with 1 when nothing succeeds or no server is there', async () => {
  const errors: string[] = [];
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => errors.push(String(text)) > 0);
  expect(await run('--url', 'http://127.0.0.1:1', '--max-requests', '1', '--quiet')).toBe(1);
  expect(errors.join('')).toContain('http://127.0.0.1:1/v1/models');
  expect(await run('--url', 'http://127.0.0.1:1', '--model', 'm', '--max-requests', '1', '--quiet')).toBe(1);
});

it.each([
  [['--url', 'localhost:1'], 'is not an http:// or https:// URL'],
  [['--url', 'http://a', '--rate', '0'], 'a number above 0'],
  [['--url', 'http://a', '--rate', '1', '--speed', '1'], 'cannot be used with'],
  [['--url', 'http://a', '--max-requests', '1.5'], 'whole number'],
  [[], '--url'],
])('refuses %j', async (flags, message) => {
  await expect(run(...flags)).rejects.toThrow(message);
});

it('draws progress', () => {
  const line = progressLine({ planned: 10, sent: 6, inFlight: 1, succeeded: 4, failed: 1, elapsedMs: 12_345 });
  expect(line).toContain('5/10 done, 1 in flight, 1 failed, 12 s');
  expect(line).toContain('█'.repeat(15) + '░');
});
