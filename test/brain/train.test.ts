import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import { fitNet, type FitRequest } from '../../brain/predictor/fit.ts';
import { loadBackend } from '../../brain/predictor/backend.ts';
import {
  STALLED_AFTER_MS,
  type TrainerAnswer,
  type TrainerCall,
  type TrainerThread,
  WorkerTrainer,
} from '../../brain/train.ts';
import { realClock, seededRng } from '../../shared/env.ts';
import { FEATURE_COUNT } from '../../shared/features.ts';
import { packageRoot } from '../../shared/package-root.ts';
import { VirtualClock } from '../helpers/virtual-clock.ts';

const OPTIONS = { backend: 'wasm', tfjsNodeGpuDir: '', gpuMemoryLimitMb: 512 } as const;

function request(): FitRequest {
  const rng = seededRng(9);
  const n = 100;
  const rows = Float32Array.from({ length: n * FEATURE_COUNT }, () => rng());
  const labels = Float32Array.from({ length: n * 2 }, (_, i) => (rows[(i >> 1) * FEATURE_COUNT] as number) - 0.5);
  return { champion: null, hidden: [16], rows, labels, n, seed: 3 };
}

/** A thread under the test's control. */
class FakeThread implements TrainerThread {
  calls: TrainerCall[] = [];
  terminated = false;
  private listener: (answer: TrainerAnswer) => void = () => {};
  private exit: (reason: string) => void = () => {};

  postMessage(message: TrainerCall): void {
    this.calls.push(message);
  }

  onMessage(listener: (answer: TrainerAnswer) => void): void {
    this.listener = listener;
  }

  onExit(listener: (reason: string) => void): void {
    this.exit = listener;
  }

  async terminate(): Promise<void> {
    this.terminated = true;
  }

  answer(answer: TrainerAnswer): void {
    this.listener(answer);
  }

  die(reason: string): void {
    this.exit(reason);
  }
}

describe('the training thread', () => {
  function trainerOf(clock: VirtualClock): { threads: FakeThread[]; trainer: WorkerTrainer } {
    const threads: FakeThread[] = [];
    const trainer = new WorkerTrainer(OPTIONS, clock, () => {
      threads.push(new FakeThread());
      return threads.at(-1) as FakeThread;
    });
    return { threads, trainer };
  }

  it('is started anew when it gives no answer in time', async () => {
    const clock = new VirtualClock();
    const { threads, trainer } = trainerOf(clock);
    const first = trainer.fit(request());
    clock.advance(STALLED_AFTER_MS);
    await expect(first).rejects.toMatchObject({ code: 'TRAINER_STALLED' });
    expect(threads[0]?.terminated).toBe(true);
    const second = trainer.fit(request());
    threads[0]?.die('exit code 1');
    expect(threads).toHaveLength(2);
    threads[1]?.answer({ id: threads[1].calls[0]?.id ?? 0, error: 'out of memory' });
    await expect(second).rejects.toThrow('out of memory');
  });

  it('is started anew after it died', async () => {
    const { threads, trainer } = trainerOf(new VirtualClock());
    const first = trainer.start();
    threads[0]?.die('segmentation fault');
    await expect(first).rejects.toThrow('segmentation fault');
    const second = trainer.start();
    const info = { name: 'cpu', gpu: false, tried: [], memory: '' } as const;
    threads[1]?.answer({ id: threads[1].calls[0]?.id ?? 0, value: { ...info, tried: [] } });
    expect(await second).toEqual(info);
    await trainer.close();
  });
});

describe('the compiled worker', () => {
  it('trains in its own thread to the same net as the calling thread', async () => {
    const compiled = join(packageRoot, 'dist/brain/train.js');
    expect(existsSync(compiled), 'run `npm run build` first; `npm test` does').toBe(true);
    const built = (await import(/* @vite-ignore */ pathToFileURL(compiled).href)) as {
      WorkerTrainer: typeof WorkerTrainer;
    };
    const trainer = new built.WorkerTrainer(OPTIONS, realClock);
    expect(await trainer.start()).toMatchObject({ name: 'wasm', gpu: false });
    const inThread = await trainer.fit(request());
    await trainer.close();
    const { tf } = await loadBackend(OPTIONS);
    expect(inThread).toEqual(fitNet(tf, request()));
  });
});
