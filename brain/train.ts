import { SHARE_ENV, Worker } from 'node:worker_threads';
import type { Clock, Timer } from '../shared/env.ts';
import { LodestarError } from '../shared/errors.ts';
import { type BackendInfo, type BackendOptions, loadBackend, type Tf } from './predictor/backend.ts';
import { type FitRequest, type FitResult, fitNet } from './predictor/fit.ts';

/** A round is expected within this time; after it the thread is started anew. */
export const STALLED_AFTER_MS = 60_000;
/** The backend's start may take longer: a GPU newer than the library compiles its kernels first. */
const START_WITHIN_MS = 600_000;

/** Trains nets, one at a time. */
export interface Trainer {
  /** Starts the backend. Errors: PREDICTOR_BACKEND. */
  start(): Promise<BackendInfo>;
  /** Errors: TRAINER_STALLED, or whatever the backend throws. */
  fit(request: FitRequest): Promise<FitResult>;
  close(): Promise<void>;
}

/** Trains on the calling thread: for tests and simulations, where training is synchronous. */
export class InThreadTrainer implements Trainer {
  private readonly options: BackendOptions;
  private tf: Tf | undefined;

  constructor(options: BackendOptions) {
    this.options = options;
  }

  async start(): Promise<BackendInfo> {
    const { tf, info } = await loadBackend(this.options);
    this.tf = tf;
    return info;
  }

  async fit(request: FitRequest): Promise<FitResult> {
    if (!this.tf) await this.start();
    return fitNet(this.tf as Tf, request);
  }

  async close(): Promise<void> {
    this.tf = undefined;
  }
}

/** What the thread is told and answers. */
export type TrainerCall = { id: number; call: 'start' } | { id: number; call: 'fit'; request: FitRequest };
export type TrainerAnswer = { id: number; value: BackendInfo | FitResult } | { id: number; error: string };

/** The part of a worker thread that the trainer uses, so that tests can give a silent one. */
export interface TrainerThread {
  postMessage(message: TrainerCall): void;
  onMessage(listener: (answer: TrainerAnswer) => void): void;
  onExit(listener: (reason: string) => void): void;
  terminate(): Promise<unknown>;
}

interface Waiting {
  resolve(value: BackendInfo | FitResult): void;
  reject(error: Error): void;
  timer: Timer;
}

/**
 * Trains in a worker thread, so that the main loop stays free; a thread that stalls or dies is replaced at the next
 * call.
 */
export class WorkerTrainer implements Trainer {
  private readonly spawn: () => TrainerThread;
  private readonly clock: Clock;
  private readonly waiting = new Map<number, Waiting>();
  private thread: TrainerThread | undefined;
  private lastId = 0;

  constructor(options: BackendOptions, clock: Clock, spawn: () => TrainerThread = () => spawnThread(options)) {
    this.clock = clock;
    this.spawn = spawn;
  }

  async start(): Promise<BackendInfo> {
    return (await this.ask(START_WITHIN_MS, (id) => ({ id, call: 'start' }))) as BackendInfo;
  }

  async fit(request: FitRequest): Promise<FitResult> {
    return (await this.ask(STALLED_AFTER_MS, (id) => ({ id, call: 'fit', request }))) as FitResult;
  }

  async close(): Promise<void> {
    await this.end('the brain is closing');
  }

  private ask(withinMs: number, call: (id: number) => TrainerCall): Promise<BackendInfo | FitResult> {
    const thread = (this.thread ??= this.open());
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      const timer = this.clock.after(withinMs, () => void this.end(`no answer in ${withinMs / 1000} s`));
      this.waiting.set(id, { resolve, reject, timer });
      thread.postMessage(call(id));
    });
  }

  private open(): TrainerThread {
    const thread = this.spawn();
    thread.onMessage((answer) => {
      const waiting = this.waiting.get(answer.id);
      if (!waiting) return;
      this.waiting.delete(answer.id);
      waiting.timer.cancel();
      if ('error' in answer) waiting.reject(new LodestarError('PREDICTOR_BACKEND', answer.error));
      else waiting.resolve(answer.value);
    });
    thread.onExit((reason) => {
      if (this.thread === thread) void this.end(reason);
    });
    return thread;
  }

  /** Ends the thread; whoever waits for it is told why. */
  private async end(reason: string): Promise<void> {
    const thread = this.thread;
    this.thread = undefined;
    for (const { reject, timer } of this.waiting.values()) {
      timer.cancel();
      reject(new LodestarError('TRAINER_STALLED', `the training thread ended: ${reason}`));
    }
    this.waiting.clear();
    await thread?.terminate();
  }
}

/**
 * The compiled worker beside this file. The environment is shared, since TensorFlow's C library reads the process's
 * own.
 */
function spawnThread(options: BackendOptions): TrainerThread {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  const worker = new Worker(new URL(`./train-worker.${extension}`, import.meta.url), {
    workerData: options,
    env: SHARE_ENV,
  });
  return {
    postMessage: (message) => worker.postMessage(message),
    onMessage: (listener) => void worker.on('message', listener),
    onExit(listener) {
      worker.on('error', (error) => listener(error.message));
      worker.on('exit', (code) => listener(`exit code ${code}`));
    },
    terminate: () => worker.terminate(),
  };
}
