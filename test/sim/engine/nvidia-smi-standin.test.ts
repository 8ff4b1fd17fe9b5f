import { execFile, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Engine } from '../../../sim/engine/engine.ts';
import { GpuStateWriter, nvidiaSmiStandinPath } from '../../../sim/engine/gpu-state.ts';
import { findGpu, loadGpus } from '../../../sim/engine/gpus.ts';
import { VirtualClock } from '../../helpers/virtual-clock.ts';

let dir: string;
let state: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'standin-'));
  state = join(dir, 'state.json');
});

afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** State of an A30 engine that was busy for `busyMs` of the last second. */
function writeState(path: string, busyMs: number): void {
  const clock = new VirtualClock(Date.now());
  const options = {
    clock,
    stepTime: () => busyMs,
    frontEndMs: 0,
    blockCount: 100,
    blockSize: 16,
    maxNumSeqs: 4,
    maxBatchedTokens: 64,
  };
  const engine = new Engine({ ...options, maxModelLen: 64, sample: () => 1 });
  const writer = new GpuStateWriter(path, clock, findGpu(loadGpus(), 'A30'), engine);
  if (busyMs > 0) engine.submit({ id: 'a', prompt: new Int32Array(4), maxOutput: 1 }, { onFinish: () => undefined });
  clock.advance(1000);
  writer.stop();
}

function run(args: string[], states = state): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const env = { ...process.env, LODESTAR_STANDIN_STATE: states };
    execFile(nvidiaSmiStandinPath, args, { env }, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code) : 0, stdout, stderr });
    });
  });
}

const ALL =
  'index,uuid,name,pci.bus_id,utilization.gpu,utilization.memory,memory.used,memory.total,clocks.sm,clocks.max.sm,power.draw,power.limit,temperature.gpu';

describe('stand-in for nvidia-smi', () => {
  it('reports the busy ratio of the engine in all fields it knows', async () => {
    writeState(state, 500);
    const { code, stdout } = await run([`--query-gpu=${ALL}`, '--format=csv,noheader,nounits']);
    expect(code).toBe(0);
    const fields = stdout.trim().split(', ');
    expect(fields).toHaveLength(13);
    expect([fields[0], fields[2], fields[4], fields[8], fields[9], fields[11]]).toEqual([
      '0',
      'NVIDIA A30',
      '50',
      '1440',
      '1440',
      '165.00',
    ]);
    expect(fields[1]).toMatch(/^GPU-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/);
    expect(Number(fields[6])).toBeLessThan(Number(fields[7]));
    expect(Number(fields[10])).toBeGreaterThan(165 * 0.3);
  });

  it('shows an idle GPU as idle, and several state files as several GPUs', async () => {
    const other = join(dir, 'other.json');
    writeState(state, 0);
    writeState(other, 1000);
    const { stdout } = await run(['--query-gpu=index,utilization.gpu,clocks.sm', '--format=csv'], `${state}:${other}`);
    expect(stdout).toBe('index, utilization.gpu [%], clocks.sm [MHz]\n0, 0 %, 210 MHz\n1, 100 %, 1440 MHz\n');
  });

  it('is understood by node-nvidia-smi under the name nvidia-smi', async () => {
    writeState(state, 500);
    symlinkSync(nvidiaSmiStandinPath, join(dir, 'nvidia-smi'));
    const inventory = createRequire(import.meta.url)('node-nvidia-smi') as (
      done: (error: unknown, data: unknown) => void,
    ) => void;
    const saved = { ...process.env };
    process.env['PATH'] = `${dir}:${process.env['PATH']}`;
    process.env['LODESTAR_STANDIN_STATE'] = state;
    try {
      const data = await new Promise((resolve, reject) =>
        inventory((error, result) => (error ? reject(error as Error) : resolve(result))),
      );
      expect(data).toMatchObject({
        nvidia_smi_log: {
          attached_gpus: '1',
          gpu: {
            product_name: 'NVIDIA A30',
            fb_memory_usage: { total: '24576 MiB' },
            utilization: { gpu_util: '50 %' },
          },
        },
      });
    } finally {
      process.env = saved;
    }
  });

  it('goes on sampling with -lms until it is killed, and sees new state', async () => {
    writeState(state, 0);
    const child = spawn(
      nvidiaSmiStandinPath,
      ['--query-gpu=utilization.gpu', '--format=csv,noheader,nounits', '-lms', '20'],
      {
        env: { ...process.env, LODESTAR_STANDIN_STATE: state },
      },
    );
    const seen: string[] = [];
    for await (const line of createInterface({ input: child.stdout })) {
      seen.push(line);
      if (seen.length === 2) writeState(state, 1000);
      if (line === '100') break;
    }
    child.kill();
    expect(seen.slice(0, 2)).toEqual(['0', '0']);
  });

  it('fails as nvidia-smi does: no driver 9, unknown field 2', async () => {
    expect((await run(['-q', '-x'])).code).toBe(9);
    writeState(state, 0);
    const old = JSON.parse(readFileSync(state, 'utf8')) as { writtenWallMs: number };
    writeFileSync(state, JSON.stringify({ ...old, writtenWallMs: old.writtenWallMs - 60_000 }));
    expect((await run(['-q', '-x'])).code).toBe(9);
    const unknown = await run(['--query-gpu=colour', '--format=csv']);
    expect([unknown.code, unknown.stdout]).toEqual([2, 'Field "colour" is not a valid field to query.\n']);
  });
});
