import { ChildProcess } from 'node:child_process';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { GpuInventoryCollector, readInventory } from '../../../../agent/door/collectors/gpu-inventory.ts';
import { GpuCollector, readGpuLine } from '../../../../agent/door/collectors/gpu.ts';
import { silentLog } from '../../../../shared/env.ts';
import { packageRoot } from '../../../../shared/package-root.ts';
import { VirtualClock } from '../../../helpers/virtual-clock.ts';

const standIn = join(packageRoot, 'test/fixtures/nvidia-smi/nvidia-smi');
const row = ['0', 'GPU-a', 'NVIDIA A30', '50', '20', '6144', '24576', '720', '1440', '80.25', '160.50', '61'];
const patience = { timeout: 30_000, interval: 5 };
let dir = '';
let running: { stop(): void }[] = [];

/** Replaces the stand-in's file in one step, since the child may read it at any time. */
function setState(state: object): void {
  writeFileSync(join(dir, 'next.json'), JSON.stringify(state));
  renameSync(join(dir, 'next.json'), join(dir, 'gpus.json'));
}

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'lodestar-gpu-'));
  process.env.NVIDIA_SMI_STANDIN = join(dir, 'gpus.json');
  setState({ gpus: [{ uuid: 'GPU-a', name: 'NVIDIA A30', row, pids: [10, 11] }] });
});
afterEach(() => {
  for (const collector of running) collector.stop();
  running = [];
  delete process.env.NVIDIA_SMI_STANDIN;
  rmSync(dir, { recursive: true, force: true });
});

function sampler(clock: VirtualClock, path = standIn): GpuCollector {
  const collector = new GpuCollector({ nvidiaSmiPath: path, periodMs: 20, env: { clock, log: silentLog } });
  running.push(collector);
  return collector;
}

it('reads a line, with what the card does not tell left out', () => {
  expect(readGpuLine(row.join(', '))).toEqual({
    index: 0,
    uuid: 'GPU-a',
    name: 'NVIDIA A30',
    utilRatio: 0.5,
    memUtilRatio: 0.2,
    memUsedRatio: 0.25,
    memTotalMb: 24576,
    smClockRatio: 0.5,
    powerRatio: 0.5,
    temperatureC: 61,
  });
  expect(readGpuLine('1, GPU-b, X, [N/A], [N/A], 1, 2, [N/A], 1440, [Not Supported], 160, [N/A]')).toMatchObject({
    index: 1,
    utilRatio: undefined,
    memUsedRatio: 0.5,
    powerRatio: undefined,
  });
  expect(readGpuLine('Unable to determine the device handle')).toBeUndefined();
});

it('brings figures that cannot be into range, and says which', () => {
  const odd: string[] = [];
  const read = (changes: Record<number, string>) =>
    readGpuLine(row.map((cell, i) => changes[i] ?? cell).join(', '), (name) => odd.push(name));
  expect(read({ 3: '-5', 4: '65535', 9: '5000', 11: '-30000' })).toMatchObject({
    utilRatio: 0,
    memUtilRatio: 1,
    powerRatio: 2,
    temperatureC: undefined,
    memUsedRatio: 0.25,
  });
  expect(odd).toEqual(['utilization.gpu of GPU 0', 'utilization.memory of GPU 0', 'power.draw of GPU 0']);
  expect(read({ 5: 'NaN', 7: '[N/A]' })).toMatchObject({
    memUsedRatio: undefined,
    smClockRatio: undefined,
    utilRatio: 0.5,
  });
});

it('a GPU that cannot be read does not hide the others', () => {
  const odd: string[] = [];
  const log = {
    nvidia_smi_log: {
      driver_version: '1',
      gpu: [{ product_name: 'A', uuid: 'a' }, { product_name: 7 }, { product_name: 'C', uuid: 'c' }],
    },
  };
  expect(readInventory(JSON.stringify(log), (name) => odd.push(name)).map(({ index, uuid }) => [index, uuid])).toEqual([
    [0, 'a'],
    [2, 'c'],
  ]);
  expect(odd).toEqual(['GPU 1']);
});

it('follows the samples of a long-lived child', async () => {
  const collector = sampler(new VirtualClock());
  expect(collector.latest()).toBeUndefined();
  collector.start();
  await vi.waitFor(() => expect(collector.latest()?.value[0]?.utilRatio).toBe(0.5), patience);
  expect(collector.status().ok).toBe(true);
  const second = row.with(0, '1').with(1, 'GPU-b');
  setState({ gpus: [{ row: second }, { row: row.with(3, '90') }] });
  await vi.waitFor(
    () =>
      expect(collector.latest()?.value.map((sample) => [sample.index, sample.utilRatio])).toEqual([
        [0, 0.9],
        [1, 0.5],
      ]),
    patience,
  );
});

it('starts a child anew after it ends, with a growing pause', async () => {
  const clock = new VirtualClock();
  setState({ mode: 'fail', gpus: [] });
  const collector = sampler(clock);
  collector.start();
  await vi.waitFor(() => expect(collector.status().error).toContain('could not communicate'), patience);
  setState({ mode: 'once', gpus: [{ row }] });
  clock.advance(999);
  expect(collector.latest()).toBeUndefined();
  clock.advance(1);
  await vi.waitFor(() => expect(collector.status().error).toContain('nvidia-smi ended'), patience);
  expect(collector.latest()?.value).toHaveLength(1);
});

it('replaces a child that falls silent', async () => {
  const clock = new VirtualClock();
  setState({ mode: 'hang', gpus: [] });
  const collector = sampler(clock);
  collector.start();
  clock.advance(5000);
  await vi.waitFor(() => expect(collector.status().error).toContain('no sample for 5000 ms'), patience);
});

it('says that nvidia-smi is not there, and looks again a minute later', async () => {
  const clock = new VirtualClock();
  const collector = sampler(clock, join(dir, 'nvidia-smi'));
  collector.start();
  await vi.waitFor(() => expect(collector.status().error).toContain('is not there'), patience);
  expect(collector.status().ok).toBe(false);
});

it('takes stock of the GPUs and their processes', async () => {
  const collector = new GpuInventoryCollector(standIn, { clock: new VirtualClock(), log: silentLog });
  await collector.readNow();
  expect(collector.latest()?.value).toEqual([
    { index: 0, uuid: 'GPU-a', name: 'NVIDIA A30', memTotalMb: 24576, driverVersion: '550.54', processIds: [10, 11] },
  ]);
  setState({
    gpus: [
      { uuid: 'GPU-a', name: 'A', row },
      { uuid: 'GPU-b', name: 'B', row, pids: [7] },
    ],
  });
  await collector.readNow();
  expect(collector.latest()?.value.map((gpu) => [gpu.index, gpu.uuid, gpu.processIds])).toEqual([
    [0, 'GPU-a', []],
    [1, 'GPU-b', [7]],
  ]);
});

it('keeps its stock when nvidia-smi warns, hangs or is gone', async () => {
  const clock = new VirtualClock();
  const collector = new GpuInventoryCollector(standIn, { clock, log: silentLog });
  await collector.readNow();
  setState({ mode: 'warn', gpus: [{ uuid: 'GPU-z', name: 'Z', row }] });
  await collector.readNow();
  expect(collector.status()).toMatchObject({ ok: false, error: expect.stringContaining('infoROM') as string });
  setState({ mode: 'hang', gpus: [] });
  const reading = collector.readNow();
  clock.advance(5000);
  await reading;
  expect(collector.status().error).toContain('did not finish within 5000 ms');
  expect(collector.latest()?.value[0]?.uuid).toBe('GPU-a');
  const stopped = collector.readNow();
  collector.stop();
  await stopped;
  expect(collector.status().error).toContain('stopped');
  const renamed = new GpuInventoryCollector('/opt/smi', { clock, log: silentLog });
  await renamed.readNow();
  expect(renamed.status().error).toContain('agent.nvidiaSmiPath');
});

it('says that the inventory has no nvidia-smi', async () => {
  const path = process.env.PATH;
  process.env.PATH = dir;
  try {
    const collector = new GpuInventoryCollector(join(dir, 'nvidia-smi'), { clock: new VirtualClock(), log: silentLog });
    await collector.readNow();
    expect(collector.status().error).toBe(`${join(dir, 'nvidia-smi')} is not there`);
  } finally {
    process.env.PATH = path;
  }
});

it('signals no process when it is stopped before a child that could not be started has said so', () => {
  const kill = vi.spyOn(ChildProcess.prototype, 'kill').mockReturnValue(true);
  try {
    const collector = new GpuCollector({
      nvidiaSmiPath: '/nonexistent/nvidia-smi',
      periodMs: 100,
      env: { clock: new VirtualClock(), log: silentLog },
    });
    collector.start();
    collector.stop();
    expect(kill).not.toHaveBeenCalled();
  } finally {
    kill.mockRestore();
  }
});
