import { execFile } from 'node:child_process';
import { errorMessage } from '../../shared/errors.ts';

const ASK_WITHIN_MS = 5_000;

/** One GPU as `nvidia-smi --query-gpu=index,memory.free` shows it. */
interface FreeMemory {
  index: string;
  freeMb: number;
}

/**
 * Prepares TensorFlow's environment so that training takes at most about `limitMb` of one GPU, since a model server may
 * live on the same card. Must run before the library is loaded. TensorFlow.js has no option for it (tensorflow/tfjs
 * issues 671 and 2611), TensorFlow has two variables: TF_FORCE_GPU_ALLOW_GROWTH, and TF_DEVICE_MIN_SYS_MEMORY_IN_MB,
 * the memory it leaves to others: its pool is what is free less that. What the operator has set stays. Returns what was
 * done, for the log.
 */
export async function limitGpuMemory(limitMb: number, env: NodeJS.ProcessEnv = process.env): Promise<string> {
  env['TF_FORCE_GPU_ALLOW_GROWTH'] ??= 'true';
  env['TF_CPP_MIN_LOG_LEVEL'] ??= '1';
  if (env['TF_DEVICE_MIN_SYS_MEMORY_IN_MB'] !== undefined)
    return 'grows on demand; cap as set in TF_DEVICE_MIN_SYS_MEMORY_IN_MB';
  let gpus: FreeMemory[];
  try {
    gpus = parseFreeMemory(await query());
  } catch (error) {
    return `grows on demand; no cap, since nvidia-smi does not tell what is free (${errorMessage(error)})`;
  }
  const visible = env['CUDA_VISIBLE_DEVICES']?.split(',')[0]?.trim();
  const emptiest = gpus.toSorted((a, b) => b.freeMb - a.freeMb)[0];
  const gpu = visible === undefined ? emptiest : gpus.find(({ index }) => index === visible);
  if (!gpu) return 'grows on demand; no cap, since the visible GPU is not in the list of nvidia-smi';
  env['CUDA_DEVICE_ORDER'] ??= 'PCI_BUS_ID';
  env['CUDA_VISIBLE_DEVICES'] = gpu.index;
  env['TF_DEVICE_MIN_SYS_MEMORY_IN_MB'] = String(Math.max(1, gpu.freeMb - limitMb));
  return `grows on demand up to ${Math.min(limitMb, gpu.freeMb)} MiB on GPU ${gpu.index}`;
}

/** Reads `index, free MiB` lines. */
export function parseFreeMemory(text: string): FreeMemory[] {
  return text.split('\n').flatMap((line) => {
    const match = /^\s*(\d+)\s*,\s*(\d+)\s*$/.exec(line);
    return match ? [{ index: match[1] as string, freeMb: Number(match[2]) }] : [];
  });
}

function query(): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(
      'nvidia-smi',
      ['--query-gpu=index,memory.free', '--format=csv,noheader,nounits'],
      { timeout: ASK_WITHIN_MS, killSignal: 'SIGKILL' },
      (error, stdout) => {
        if (error) reject(error);
        else resolve(stdout);
      },
    );
  });
}
