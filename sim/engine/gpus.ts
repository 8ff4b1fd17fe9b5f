import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { errorMessage, LodestarError } from '../../shared/errors.ts';
import { packageRoot } from '../../shared/package-root.ts';

const positive = z.number().positive();
const notNegative = z.number().min(0);

const gpuSchema = z.object({
  memoryGiB: positive.default(80),
  kvTokens: z.number().int().positive(),
  c0: positive,
  c1: notNegative,
  c2: notNegative,
  c3: notNegative,
  c4: notNegative,
  T0: notNegative.optional(),
  c5: notNegative.optional(),
  status: z.string().default('given by the user'),
  hardware: z
    .object({ name: z.string(), memoryMiB: positive, powerLimitW: positive, maxSmClockMhz: positive })
    .partial()
    .optional(),
});

const fileSchema = z.object({ gpus: z.record(z.string(), gpuSchema) });

/** What nvidia-smi would report about the card itself. */
export interface GpuHardware {
  name: string;
  memoryMiB: number;
  powerLimitW: number;
  maxSmClockMhz: number;
}

export interface GpuProfile extends Omit<z.infer<typeof gpuSchema>, 'hardware'> {
  key: string;
  hardware: GpuHardware;
}

/** Nominal figures of the cards in the calibration (vendor data sheets; names as nvidia-smi prints them). */
const HARDWARE: Record<string, GpuHardware> = {
  A30: { name: 'NVIDIA A30', memoryMiB: 24576, powerLimitW: 165, maxSmClockMhz: 1440 },
  V100: { name: 'Tesla V100-SXM2-32GB', memoryMiB: 32768, powerLimitW: 300, maxSmClockMhz: 1530 },
  L20: { name: 'NVIDIA L20', memoryMiB: 46068, powerLimitW: 275, maxSmClockMhz: 2520 },
  A100: { name: 'NVIDIA A100-SXM4-80GB', memoryMiB: 81920, powerLimitW: 400, maxSmClockMhz: 1410 },
};

/** The calibration that ships with the project. */
export const calibrationPath: string = join(packageRoot, 'sim/data/calibration/gpus.json');

/**
 * Reads GPU profiles (`gpus: {KEY: {c0…c4, kvTokens, …}}`) from the shipped calibration and, over it, from a file of
 * the user's. Throws CONFIG_INVALID naming the file and field.
 */
export function loadGpus(userFile?: string): Map<string, GpuProfile> {
  const gpus = new Map<string, GpuProfile>();
  for (const path of userFile === undefined ? [calibrationPath] : [calibrationPath, userFile]) {
    for (const [key, gpu] of Object.entries(readFile(path).gpus)) {
      const standard = HARDWARE[key] ?? {
        name: `Emulated ${key}`,
        memoryMiB: gpu.memoryGiB * 1024,
        powerLimitW: 300,
        maxSmClockMhz: 1500,
      };
      const given = Object.fromEntries(Object.entries(gpu.hardware ?? {}).filter(([, value]) => value !== undefined));
      gpus.set(key, { ...gpu, key, hardware: { ...standard, ...given } });
    }
  }
  return gpus;
}

/** The profile named `key`; CONFIG_INVALID listing the known names if there is none. */
export function findGpu(gpus: Map<string, GpuProfile>, key: string): GpuProfile {
  const gpu = gpus.get(key);
  if (gpu) return gpu;
  throw new LodestarError(
    'CONFIG_INVALID',
    `unknown GPU '${key}': known are ${[...gpus.keys()].join(', ')}; --gpu-file adds others`,
  );
}

function readFile(path: string): z.infer<typeof fileSchema> {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new LodestarError('CONFIG_INVALID', `GPU file ${path}: ${errorMessage(error)}`, { cause: error });
  }
  const parsed = fileSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw new LodestarError('CONFIG_INVALID', `GPU file ${path}: ${issue.path.join('.')}: ${issue.message}`);
}
