import { describe, expect, it } from 'vitest';
import {
  type BackendLoader,
  type BackendName,
  type BackendOptions,
  loadBackend,
} from '../../../brain/predictor/backend.ts';
import { limitGpuMemory, parseFreeMemory } from '../../../brain/predictor/gpu-memory.ts';
import { tempDir } from '../fixtures.ts';

const AUTO: BackendOptions = { backend: 'auto', tfjsNodeGpuDir: '', gpuMemoryLimitMb: 512 };

function failing(tried: BackendName[], name: BackendName, error: unknown): BackendLoader {
  return () => {
    tried.push(name);
    return Promise.reject(error);
  };
}

describe('the training backend', () => {
  it('is the first of tfjs-node-gpu, wasm and cpu that starts, and says why those before it were not taken', async () => {
    const empty = tempDir();
    const { info } = await loadBackend({ ...AUTO, tfjsNodeGpuDir: empty.dir });
    empty.remove();
    expect(info.name).toBe('wasm');
    expect(info.gpu).toBe(false);
    expect(info.tried).toEqual([{ name: 'tfjs-node-gpu', error: expect.stringContaining('tfjs-node-gpu') }]);
  });

  it('falls back past errors of any kind, thrown values that are no errors included', async () => {
    const tried: BackendName[] = [];
    const cpu = (await loadBackend({ ...AUTO, backend: 'cpu' })).tf;
    const { info } = await loadBackend(AUTO, {
      'tfjs-node-gpu': failing(tried, 'tfjs-node-gpu', 'libcudart.so.12: cannot open shared object file\nand more'),
      wasm: failing(tried, 'wasm', new TypeError('no WebAssembly')),
      cpu: async () => ({ tf: cpu, gpu: false, memory: '' }),
    });
    expect(tried).toEqual(['tfjs-node-gpu', 'wasm']);
    expect(info).toMatchObject({
      name: 'cpu',
      tried: [
        { name: 'tfjs-node-gpu', error: 'libcudart.so.12: cannot open shared object file' },
        { name: 'wasm', error: 'no WebAssembly' },
      ],
    });
  });

  it('starts with the one that was asked for, and fails with every reason when none is left', async () => {
    const tried: BackendName[] = [];
    const loaders = {
      'tfjs-node-gpu': failing(tried, 'tfjs-node-gpu', new Error('a')),
      wasm: failing(tried, 'wasm', new Error('b')),
      cpu: failing(tried, 'cpu', new Error('c')),
    };
    await expect(loadBackend({ ...AUTO, backend: 'wasm' }, loaders)).rejects.toThrow('wasm: b; cpu: c');
    expect(tried).toEqual(['wasm', 'cpu']);
  });

  it('is not one that loads but computes wrong values', async () => {
    const { tf } = await loadBackend({ ...AUTO, backend: 'cpu' });
    const wrong = { ...tf, matMul: () => tf.tensor2d([0], [1, 1]) } as unknown as typeof tf;
    const { info } = await loadBackend(AUTO, {
      'tfjs-node-gpu': async () => ({ tf: wrong, gpu: true, memory: '' }),
      wasm: async () => ({ tf, gpu: false, memory: '' }),
      cpu: async () => ({ tf, gpu: false, memory: '' }),
    });
    expect(info.tried[0]?.error).toContain('wrong values');
  });
});

describe('GPU memory', () => {
  it('is read off nvidia-smi', () => {
    expect(parseFreeMemory('0, 79000\n1, 4096\nfoo\n')).toEqual([
      { index: '0', freeMb: 79_000 },
      { index: '1', freeMb: 4096 },
    ]);
  });

  it('grows on demand, and what the operator has set stays', async () => {
    const env: NodeJS.ProcessEnv = { TF_DEVICE_MIN_SYS_MEMORY_IN_MB: '1000' };
    expect(await limitGpuMemory(512, env)).toContain('as set');
    expect(env['TF_FORCE_GPU_ALLOW_GROWTH']).toBe('true');
    expect(env['TF_DEVICE_MIN_SYS_MEMORY_IN_MB']).toBe('1000');
  });
});
