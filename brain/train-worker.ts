import { parentPort, workerData } from 'node:worker_threads';
import { errorMessage } from '../shared/errors.ts';
import type { BackendOptions } from './predictor/backend.ts';
import { InThreadTrainer, type TrainerAnswer, type TrainerCall } from './train.ts';

// Entry of the training thread: answers each call of WorkerTrainer with the trainer's own method.
const trainer = new InThreadTrainer(workerData as BackendOptions);

parentPort?.on('message', (call: TrainerCall) => void answer(call));

async function answer(call: TrainerCall): Promise<void> {
  const { id } = call;
  let reply: TrainerAnswer;
  try {
    reply = { id, value: call.call === 'start' ? await trainer.start() : await trainer.fit(call.request) };
  } catch (error) {
    reply = { id, error: errorMessage(error) };
  }
  parentPort?.postMessage(reply);
}
