import { createRequire } from 'node:module';
import { dirname, join, sep } from 'node:path';
import util from 'node:util';
import type * as TfCore from '@tensorflow/tfjs-core';
import { errorMessage, LodestarError } from '../../shared/errors.ts';
import { limitGpuMemory } from './gpu-memory.ts';

/** The part of TensorFlow.js that training needs; each backend brings the same one. */
export type Tf = typeof TfCore;

export const BACKEND_NAMES = ['tfjs-node-gpu', 'wasm', 'cpu'] as const;
export type BackendName = (typeof BACKEND_NAMES)[number];

/** The backend in force, and what became of those before it in the list. */
export interface BackendInfo {
  name: BackendName;
  /** true only if TensorFlow says that it computes on a GPU */
  gpu: boolean;
  tried: { name: BackendName; error: string }[];
  /** what is done about GPU memory; empty without a GPU */
  memory: string;
}

export interface BackendOptions {
  /** `auto`: the first of BACKEND_NAMES that starts; otherwise this one first, then those after it */
  backend: 'auto' | BackendName;
  /** folder that holds node_modules/@tensorflow/tfjs-node-gpu; empty: the installed package */
  tfjsNodeGpuDir: string;
  gpuMemoryLimitMb: number;
}

interface Started {
  tf: Tf;
  gpu: boolean;
  memory: string;
}

/** Starts one backend, or throws whatever its package throws. */
export type BackendLoader = (options: BackendOptions) => Promise<Started>;

const LOADERS: Record<BackendName, BackendLoader> = { 'tfjs-node-gpu': loadNodeGpu, wasm: loadWasm, cpu: loadCpu };

/**
 * Starts the first backend that works, in order. A native package may fail in any way (absent, without its binding,
 * wrong CUDA), so every error counts as "not this one" and is kept. Errors: PREDICTOR_BACKEND if none starts.
 */
export async function loadBackend(
  options: BackendOptions,
  loaders: Record<BackendName, BackendLoader> = LOADERS,
): Promise<{ tf: Tf; info: BackendInfo }> {
  const from = options.backend === 'auto' ? 0 : BACKEND_NAMES.indexOf(options.backend);
  const tried: BackendInfo['tried'] = [];
  for (const name of BACKEND_NAMES.slice(from)) {
    try {
      const { tf, gpu, memory } = await loaders[name](options);
      // No banners on standard error, no checks of shapes at each operation.
      tf.enableProdMode();
      checkWorks(tf);
      return { tf, info: { name, gpu, tried, memory } };
    } catch (error) {
      tried.push({ name, error: (errorMessage(error).split('\n')[0] ?? '').slice(0, 300) });
    }
  }
  throw new LodestarError(
    'PREDICTOR_BACKEND',
    `no TensorFlow.js backend starts: ${tried.map(({ name, error }) => `${name}: ${error}`).join('; ')}`,
  );
}

/**
 * A backend that loads may still be unable to compute (a GPU without code for it): a small product with its gradient
 * shows it.
 */
function checkWorks(tf: Tf): void {
  const [value, gradient] = tf.tidy(() => {
    const x = tf.tensor2d([1, 2, 3, 4], [2, 2]);
    const product = tf.sum(tf.matMul(x, x));
    const slope = tf.grad((at) => tf.sum(tf.relu(at)))(x);
    return [product.dataSync()[0], slope.dataSync()[0]];
  });
  if (value !== 54 || gradient !== 1) throw new Error(`it computes wrong values: ${value}, ${gradient}`);
}

async function loadNodeGpu(options: BackendOptions): Promise<Started> {
  // The package calls two functions that Node 23 removed (tensorflow/tfjs issue 8609).
  const old = util as { isNullOrUndefined?: (value: unknown) => boolean; isArray?: (value: unknown) => boolean };
  old.isNullOrUndefined ??= (value) => value === null || value === undefined;
  old.isArray ??= Array.isArray;
  const memory = await limitGpuMemory(options.gpuMemoryLimitMb);
  const base = options.tfjsNodeGpuDir === '' ? import.meta.url : join(options.tfjsNodeGpuDir, 'noop.js');
  const tf = createRequire(base)('@tensorflow/tfjs-node-gpu') as Tf;
  if (!(await tf.setBackend('tensorflow'))) throw new Error('its backend does not start');
  const gpu = (tf.backend() as { isUsingGpuDevice?: boolean }).isUsingGpuDevice === true;
  return { tf, gpu, memory: gpu ? memory : '' };
}

/** The core with its gradients, which only the layers package registers in a form that Node loads. */
async function loadCore(): Promise<Tf> {
  const tf = await import('@tensorflow/tfjs-core');
  await import('@tensorflow/tfjs-layers');
  return tf;
}

async function loadWasm(): Promise<Started> {
  const tf = await loadCore();
  const { setWasmPaths } = await import('@tensorflow/tfjs-backend-wasm');
  setWasmPaths(dirname(createRequire(import.meta.url).resolve('@tensorflow/tfjs-backend-wasm')) + sep);
  return start(tf, 'wasm');
}

async function loadCpu(): Promise<Started> {
  const tf = await loadCore();
  await import('@tensorflow/tfjs-backend-cpu');
  return start(tf, 'cpu');
}

async function start(tf: Tf, backend: string): Promise<Started> {
  if (!(await tf.setBackend(backend))) throw new Error('its backend does not start');
  return { tf, gpu: false, memory: '' };
}
