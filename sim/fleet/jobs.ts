import { Worker } from 'node:worker_threads';
import { LodestarError } from '../../shared/errors.ts';
import {
  type CapacityDone,
  type CapacityJob,
  type Job,
  type JobDone,
  type RunDone,
  type RunJob,
  runJob,
} from './job.ts';

/** What a job thread answers; errors cross threads as their fields. */
export type JobAnswer = { done: JobDone } | { error: { code: LodestarError['code'] | undefined; message: string } };

export interface JobsOptions {
  /** threads; 1 runs everything in the caller's own */
  threads: number;
  onDone?: (ended: number, total: number) => void;
}

/** `runAllJobs` for runs. */
export async function runRuns(jobs: readonly RunJob[], options: JobsOptions): Promise<RunDone[]> {
  return (await runAllJobs(jobs, options)) as RunDone[];
}

/** `runAllJobs` for measurements of capacity. */
export async function runCapacities(jobs: readonly CapacityJob[], options: JobsOptions): Promise<CapacityDone[]> {
  return (await runAllJobs(jobs, options)) as CapacityDone[];
}

/**
 * Does all jobs and gives their results in the order of the jobs, which depend neither on the number of threads nor on
 * who ends first. The first error ends all threads and is thrown. Threads end with the process, so an interrupt leaves
 * nothing behind.
 */
export async function runAllJobs(jobs: readonly Job[], options: JobsOptions): Promise<JobDone[]> {
  const threads = Math.min(options.threads, jobs.length);
  const results: JobDone[] = [];
  let ended = 0;
  const finish = (index: number, done: JobDone): void => {
    results[index] = done;
    ended += 1;
    options.onDone?.(ended, jobs.length);
  };
  if (threads <= 1) {
    for (const [index, job] of jobs.entries()) finish(index, await runJob(job));
    return results;
  }
  const workers = Array.from({ length: threads }, openThread);
  let next = 0;
  try {
    await Promise.all(
      workers.map(async (worker) => {
        while (next < jobs.length) {
          const index = next++;
          finish(index, await ask(worker, jobs[index] as Job));
        }
      }),
    );
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
  return results;
}

/** The compiled thread beside this file. */
function openThread(): Worker {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  return new Worker(new URL(`./job-thread.${extension}`, import.meta.url));
}

function ask(worker: Worker, job: Job): Promise<JobDone> {
  return new Promise((resolve, reject) => {
    const settle = (act: () => void): void => {
      worker.off('message', onMessage).off('error', onError).off('exit', onExit);
      act();
    };
    const onMessage = (answer: JobAnswer): void =>
      settle(() => {
        if ('done' in answer) resolve(answer.done);
        else
          reject(
            answer.error.code
              ? new LodestarError(answer.error.code, answer.error.message)
              : new Error(answer.error.message),
          );
      });
    const onError = (error: Error): void => settle(() => reject(error));
    const onExit = (code: number): void =>
      settle(() => reject(new LodestarError('PROCESS_DIED', `a thread of the simulation ended with ${code}`)));
    worker.on('message', onMessage).on('error', onError).on('exit', onExit);
    worker.postMessage(job);
  });
}
