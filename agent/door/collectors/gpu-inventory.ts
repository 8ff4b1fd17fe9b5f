import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { basename, delimiter, dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import type { Clock, Env } from '../../../shared/env.ts';
import { LodestarError } from '../../../shared/errors.ts';
import { firstIssue } from '../../../shared/table.ts';
import { PeriodicCollector } from './collector.ts';
import type { NoteOdd } from './odd-values.ts';

/** One GPU of the host. */
export interface GpuDevice {
  /** Position in nvidia-smi's list. */
  index: number;
  uuid: string;
  name: string;
  memTotalMb: number | undefined;
  driverVersion: string | undefined;
  /** Processes that compute on it, by which an engine finds its GPUs. */
  processIds: readonly number[];
}

const PERIOD_MS = 60_000;
const DEADLINE_MS = 5000;
const MAX_OUTPUT_BYTES = 16 * 1024 * 1024;

const processInfo = z.object({ pid: z.string() });
const gpuBody = z.object({
  product_name: z.string(),
  uuid: z.string(),
  fb_memory_usage: z.object({ total: z.string().optional() }).optional(),
  processes: z
    .union([z.string(), z.object({ process_info: z.union([processInfo, z.array(processInfo)]).optional() })])
    .optional(),
});
const logBody = z.object({
  nvidia_smi_log: z.object({ driver_version: z.string().optional(), gpu: z.unknown() }),
});

/**
 * The GPUs of the host by node-nvidia-smi, at start and each minute. The package has no deadline, cannot be pointed at
 * an executable (it runs `nvidia-smi` through a shell) and parses 100 KB of XML in one go, so its own command runs as a
 * child: with the executable's folder first in PATH, killed with its descendants after 5 s, and away from the event
 * loop.
 */
export class GpuInventoryCollector extends PeriodicCollector<GpuDevice[]> {
  private readonly running: Running;

  constructor(nvidiaSmiPath: string, env: Pick<Env, 'clock' | 'log'>) {
    const running: Running = { kill: () => {} };
    super('gpu-inventory', PERIOD_MS, env, async (note) =>
      readInventory(await runNodeNvidiaSmi(nvidiaSmiPath, env.clock, running), note),
    );
    this.running = running;
  }

  override stop(): void {
    super.stop();
    this.running.kill('stopped');
  }
}

/** The child under way, if any. */
interface Running {
  kill: (why: string) => void;
}

/**
 * Reads the devices off the JSON that node-nvidia-smi makes of `nvidia-smi -q -x`: one GPU is an object, several are a
 * list. `note` hears of those that cannot be read.
 */
export function readInventory(json: string, note: NoteOdd = () => undefined): GpuDevice[] {
  const { nvidia_smi_log: log } = logBody.parse(JSON.parse(json));
  return asList(log.gpu).flatMap((raw, index) => {
    const { data: gpu, error } = gpuBody.safeParse(raw);
    if (!gpu) {
      note(`GPU ${index}`, firstIssue(error));
      return [];
    }
    const processes = typeof gpu.processes === 'object' ? asList(gpu.processes.process_info) : [];
    const memTotalMb = Number.parseFloat(gpu.fb_memory_usage?.total ?? '');
    return {
      index,
      uuid: gpu.uuid,
      name: gpu.product_name,
      memTotalMb: Number.isFinite(memTotalMb) ? memTotalMb : undefined,
      driverVersion: log.driver_version,
      processIds: processes.map((process) => Number(process.pid)).filter(Number.isSafeInteger),
    };
  });
}

function runNodeNvidiaSmi(nvidiaSmiPath: string, clock: Clock, running: Running): Promise<string> {
  return new Promise((done, failed) => {
    const script = join(dirname(createRequire(import.meta.url).resolve('node-nvidia-smi')), 'node-nvidia-smi.js');
    const child = spawn(process.execPath, [script], {
      env: envWith(nvidiaSmiPath),
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    const kill = (why: string): void => {
      if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) killGroup(child.pid);
      failed(new LodestarError('UPSTREAM_FAILED', why));
    };
    running.kill = kill;
    const deadline = clock.after(DEADLINE_MS, () => kill(`nvidia-smi did not finish within ${DEADLINE_MS} ms`));
    let out = '';
    let complaint = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text;
      if (out.length > MAX_OUTPUT_BYTES) kill(`nvidia-smi printed more than ${MAX_OUTPUT_BYTES} bytes`);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      complaint = (complaint + text).slice(0, 500);
    });
    child.on('error', (error) => kill(error.message));
    child.on('close', (code) => {
      deadline.cancel();
      if (code === 0) done(out);
      else
        failed(
          new LodestarError(
            'UPSTREAM_FAILED',
            /not found|code: 127/.test(complaint)
              ? `${nvidiaSmiPath} is not there`
              : `nvidia-smi failed: ${complaint.trim()}`,
          ),
        );
    });
  });
}

function envWith(nvidiaSmiPath: string): NodeJS.ProcessEnv {
  if (basename(nvidiaSmiPath) !== 'nvidia-smi') {
    throw new LodestarError(
      'CONFIG_INVALID',
      `agent.nvidiaSmiPath: ${nvidiaSmiPath} must be an executable of the name nvidia-smi`,
    );
  }
  if (nvidiaSmiPath === 'nvidia-smi') return process.env;
  return { ...process.env, PATH: `${resolve(dirname(nvidiaSmiPath))}${delimiter}${process.env.PATH ?? ''}` };
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // The group has already gone.
  }
}

function asList<T>(value: T | T[] | undefined): T[] {
  if (value === undefined) return [];
  return Array.isArray(value) ? value : [value];
}
