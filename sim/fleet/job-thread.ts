import { parentPort } from 'node:worker_threads';
import { errorMessage, LodestarError } from '../../shared/errors.ts';
import { type Job, runJob } from './job.ts';
import type { JobAnswer } from './jobs.ts';

// Entry of a job thread: does one job after the other.
parentPort?.on('message', async (job: Job) => {
  const answer: JobAnswer = await runJob(job).then(
    (done) => ({ done }),
    (error: unknown) => ({
      error: { code: error instanceof LodestarError ? error.code : undefined, message: errorMessage(error) },
    }),
  );
  parentPort?.postMessage(answer);
});
