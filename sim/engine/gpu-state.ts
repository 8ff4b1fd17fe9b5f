import { createHash } from 'node:crypto';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock, Timer } from '../../shared/env.ts';
import { packageRoot } from '../../shared/package-root.ts';
import type { Engine } from './engine.ts';
import type { GpuProfile } from './gpus.ts';

/**
 * The executable that answers like nvidia-smi from a state file; it reads the file's path from
 * `LODESTAR_STANDIN_STATE`.
 */
export const nvidiaSmiStandinPath: string = join(packageRoot, 'sim/engine/nvidia-smi-standin.mjs');

const WRITE_MS = 200;
/** Utilisation is over the last second, like nvidia-smi's sample period. */
const WINDOW = 5;
const IDLE_POWER_RATIO = 0.18;
const IDLE_TEMPERATURE_C = 34;
const BUSY_TEMPERATURE_C = 68;
const IDLE_SM_CLOCK_MHZ = 210;

/** Writes what a GPU under this engine would show, five times a second, in one atomic step each time. */
export class GpuStateWriter {
  private readonly path: string;
  private readonly clock: Clock;
  private readonly gpu: GpuProfile;
  private readonly engine: Engine;
  private readonly timer: Timer;
  private readonly samples: { atMs: number; busyMs: number }[] = [];
  private heat = 0;

  constructor(path: string, clock: Clock, gpu: GpuProfile, engine: Engine) {
    this.path = path;
    this.clock = clock;
    this.gpu = gpu;
    this.engine = engine;
    this.write();
    this.timer = clock.every(WRITE_MS, () => this.write());
  }

  stop(): void {
    this.timer.cancel();
  }

  private write(): void {
    const busyRatio = this.busyRatio();
    this.heat += (busyRatio - this.heat) * 0.05;
    const temporary = `${this.path}.${process.pid}.tmp`;
    try {
      writeFileSync(temporary, JSON.stringify({ writtenWallMs: this.clock.wallMs(), gpus: [this.fields(busyRatio)] }));
      renameSync(temporary, this.path);
    } catch {
      // A state that cannot be written grows old, and the stand-in reports that as a failed driver.
    }
  }

  private busyRatio(): number {
    const nowMs = this.clock.nowMs();
    this.samples.push({ atMs: nowMs, busyMs: this.engine.busyMs(nowMs) });
    if (this.samples.length > WINDOW + 1) this.samples.shift();
    const first = this.samples[0]!;
    const spanMs = nowMs - first.atMs;
    return spanMs > 0 ? Math.min(1, Math.max(0, (this.samples.at(-1)!.busyMs - first.busyMs) / spanMs)) : 0;
  }

  private fields(busyRatio: number): Record<string, string | number> {
    const { hardware, key } = this.gpu;
    const digest = createHash('sha256').update(`${key} ${this.path}`).digest('hex');
    const isBusy = busyRatio > 0;
    return {
      index: 0,
      uuid: `GPU-${digest.slice(0, 8)}-${digest.slice(8, 12)}-${digest.slice(12, 16)}-${digest.slice(16, 20)}-${digest.slice(20, 32)}`,
      name: hardware.name,
      'pci.bus_id': '00000000:01:00.0',
      'utilization.gpu': Math.round(busyRatio * 100),
      'utilization.memory': Math.round(busyRatio * 85),
      // vLLM takes its share of the memory at start, whatever it does with it later.
      'memory.used': Math.round(hardware.memoryMiB * 0.92),
      'memory.total': Math.round(hardware.memoryMiB),
      'clocks.sm': isBusy ? hardware.maxSmClockMhz : IDLE_SM_CLOCK_MHZ,
      'clocks.max.sm': hardware.maxSmClockMhz,
      'power.draw': Number(
        (hardware.powerLimitW * (IDLE_POWER_RATIO + (0.95 - IDLE_POWER_RATIO) * busyRatio)).toFixed(2),
      ),
      'power.limit': Number(hardware.powerLimitW.toFixed(2)),
      'temperature.gpu': Math.round(IDLE_TEMPERATURE_C + (BUSY_TEMPERATURE_C - IDLE_TEMPERATURE_C) * this.heat),
      pid: process.pid,
    };
  }
}
