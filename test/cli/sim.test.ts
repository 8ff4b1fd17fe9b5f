import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { addSim, type SimOutput } from '../../cli/sim.ts';
import { packageRoot } from '../../shared/package-root.ts';

const dir = mkdtempSync(join(tmpdir(), 'lodestar-sim-'));
const cluster = file('cluster.yaml', 'instances: [{gpu: A30}, {gpu: A100}]\n');
const TRACE = [
  '--trace',
  'synthetic:shared-prompts',
  '--length-scale',
  '0.25',
  '--output-scale',
  '0.1',
  '--max-requests',
  '40',
  '--warmup',
  '1',
];
const SMALL = ['--cluster', cluster, ...TRACE, '--policies', 'round-robin,lmetric'];

let out = '';
let errors = '';
beforeEach(() => {
  out = errors = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => (out += String(text)) !== '');
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => (errors += String(text)) !== '');
});
afterEach(() => {
  vi.restoreAllMocks();
  process.exitCode = undefined;
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function file(name: string, text: string): string {
  const path = join(dir, name);
  writeFileSync(path, text);
  return path;
}

async function run(...args: string[]): Promise<number> {
  const program = new Command().exitOverride();
  addSim(program);
  const quiet = (command: Command): void => {
    command.exitOverride().configureOutput({ writeErr: () => {} });
    for (const child of command.commands) quiet(child);
  };
  quiet(program);
  await program.parseAsync(['sim', ...args], { from: 'user' });
  return Number(process.exitCode);
}

describe('lodestar sim', () => {
  it('prints a table, and writes figures and a page', async () => {
    const [json, html] = [join(dir, 'out.json'), join(dir, 'out.html')];
    expect(await run(...SMALL, '--seeds', '1,2', '--json', json, '--html', html)).toBe(0);
    expect(out).toMatch(/40 requests at .* on 2 instances, rough step law; 0 left out/);
    expect(out).toMatch(/^lmetric +\d/m);
    const output = JSON.parse(readFileSync(json, 'utf8')) as SimOutput;
    expect(output.runs.map((one) => `${one.policy} ${one.seed} ${one.completed}`)).toEqual([
      'round-robin 1 40',
      'lmetric 1 40',
      'round-robin 2 40',
      'lmetric 2 40',
    ]);
    expect(output.summary['lmetric']).toMatchObject({ seeds: 2, ci95: expect.any(Number) });
    expect(output.meta).toMatchObject({
      dropped: { aboveMaxPrompt: 0, heldByNone: 0 },
      cluster: { instances: [{ gpu: 'A30' }, { gpu: 'A100' }] },
      trace: { lengthScale: 0.25 },
    });
    expect(readFileSync(html, 'utf8')).toMatch(/^<!doctype html>[^]*<\/html>\n$/);
  });

  it('gives the same bytes for the same seed, whatever the number of threads', async () => {
    await run(...SMALL, '--json', '-', '--quiet');
    const first = out;
    out = '';
    await run(...SMALL, '--json', '-', '--quiet');
    expect(out).toBe(first);
    const threads = spawnSync(
      process.execPath,
      [join(packageRoot, 'bin/lodestar.mjs'), 'sim', ...SMALL, '--json', '-', '--quiet', '--jobs', '2'],
      { encoding: 'utf8' },
    );
    expect(threads.stderr).toBe('');
    expect(threads.stdout).toBe(first);
    out = '';
    await run(...SMALL, '--json', '-', '--quiet', '--seeds', '2');
    expect(out).not.toBe(first);
  });

  it.each([
    [['--policies', 'lmetric,foo'], 'foo is unknown; known are learned, round-robin'],
    [['--format', 'x'], 'mooncake, azure, servegen, lmcache, tidy'],
    [['--objective', 'x'], 'ttft, e2e'],
    [['--rps', '1', '--rate-scale', '2'], 'cannot be used with'],
    [['--seeds', '1,x'], 'whole number'],
    [['--rps', '0'], 'a number above 0'],
  ])('refuses %j', async (flags, message) => {
    await expect(run(...SMALL, ...flags)).rejects.toThrow(message);
  });

  it.each([
    [[], '--cluster FILE is needed'],
    [['--cluster', cluster], '--trace FILE is needed'],
    [
      ['--cluster', file('bad.yaml', 'instances: [{gpu: A30, cuont: 2}]'), ...TRACE],
      'instances[0]: unknown field `cuont`',
    ],
    [
      [
        '--cluster',
        cluster,
        '--trace',
        file('bad.jsonl', '{"timestamp": 1, "input_length": 5, "output_length": "x", "hash_ids": [1]}'),
      ],
      'bad.jsonl line 1: output_length',
    ],
    [[...SMALL, '--max-prompt', '5'], 'no request is left'],
    [[...SMALL, '--json', join(dir, 'absent/out.json')], 'cannot write'],
  ])('ends with 1 and says what is wrong: %#', async (args, message) => {
    expect(await run(...args, '--quiet')).toBe(1);
    expect(errors).toContain(message);
  });

  it('passes an error of a thread on', () => {
    const bad = [
      'sim',
      '--cluster',
      cluster,
      '--trace',
      'synthetic:none',
      '--policies',
      'random,lmetric',
      '--jobs',
      '2',
    ];
    const ended = spawnSync(process.execPath, [join(packageRoot, 'bin/lodestar.mjs'), ...bad], { encoding: 'utf8' });
    expect(ended.stderr).toBe(
      'lodestar: there is no trace synthetic:none; made-up ones are synthetic:shared-prompts, synthetic:agents\n',
    );
    expect(ended.status).toBe(1);
  });
});

describe('lodestar sim matrix', () => {
  it('has flags of its own and runs the cells chosen', async () => {
    const json = join(dir, 'matrix.json');
    expect(
      await run(
        'matrix',
        '--cells',
        '26',
        '--policies',
        'round-robin,prefix-load',
        '--requests',
        '40',
        '--seeds',
        '1',
        '--json',
        json,
      ),
    ).toBe(0);
    expect(out).toContain('cell 26: pair, azure, load 0.6, 16 entries; 40 requests');
    expect(out).toMatch(/^round-robin +\d/m);
    expect(JSON.parse(readFileSync(json, 'utf8'))).toMatchObject({
      meta: {
        options: { policies: ['round-robin', 'prefix-load'], cells: [26] },
        capacities: { 'pair/azure': { requests: 40 } },
      },
      cells: [{ cell: { number: 26 }, runs: [{ policy: 'round-robin' }, { policy: 'prefix-load' }] }],
      summary: { bestOfCell: [{ number: 26 }] },
    });
  });

  it('names a file that is not there', async () => {
    expect(await run('matrix', join(dir, 'none.yaml'))).toBe(1);
    expect(errors).toContain('cannot read the matrix');
  });
});
