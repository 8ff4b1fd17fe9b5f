import { InvalidArgumentError, type Command } from 'commander';
import { realClock } from '../shared/env.ts';
import { errorMessage, LodestarError } from '../shared/errors.ts';
import { findGpu, loadGpus, type GpuProfile } from '../sim/engine/gpus.ts';
import { startEmulator, type RunningEmulator } from '../sim/engine/server.ts';

interface Flags {
  gpu: string;
  port: number;
  host: string;
  model: string;
  kvTokens?: number;
  maxNumSeqs: number;
  maxBatchedTokens: number;
  maxModelLen: number;
  frontEndMs: number;
  noise: number;
  seed: number;
  gpuStateFile?: string;
  gpuFile?: string;
  kvEventsPort?: number;
  kvReplayPort?: number;
}

const CLOSE_MS = 900;

/** `lodestar engine`: an emulated vLLM with the step times of a given GPU, over vLLM's HTTP interface. */
export function addEngine(program: Command): void {
  program
    .command('engine')
    .description("an emulated vLLM: vLLM's scheduler and HTTP interface with the step times of a GPU, but no model")
    .requiredOption('--gpu <key>', 'whose step times and KV cache: A30, V100, L20, A100, or one of --gpu-file')
    .option('--port <port>', 'port, 0 for a free one', wholeNumber(0, 65535), 9001)
    .option('--host <host>', 'address to listen on', '127.0.0.1')
    .option('--model <name>', 'model name to serve', 'emulated-llama-3.1-8b')
    .option('--kv-tokens <n>', "KV cache in tokens (default: the GPU's)", wholeNumber(32, 1e9))
    .option('--max-num-seqs <n>', 'requests running at once', wholeNumber(1, 65536), 256)
    .option('--max-batched-tokens <n>', 'tokens in a step', wholeNumber(1, 1e6), 2048)
    .option('--max-model-len <n>', 'context length in tokens', wholeNumber(2, 1e7), 32768)
    .option('--front-end-ms <ms>', 'time of a request before the scheduler sees it', realNumber, 8)
    .option('--noise <sigma>', 'lognormal noise of step times', realNumber, 0.02)
    .option('--seed <n>', 'seed of the noise', wholeNumber(0, 4294967295), 1)
    .option('--gpu-state-file <path>', 'file for the nvidia-smi stand-in, rewritten five times a second')
    .option(
      '--kv-events-port <port>',
      'publish KV events there as vLLM does over ZeroMQ, 0 for a free port (default: none)',
      wholeNumber(0, 65535),
    )
    .option('--kv-replay-port <port>', 'answer there to those who missed some', wholeNumber(0, 65535))
    .option('--gpu-file <path>', 'JSON file with further GPUs: {"gpus": {"NAME": {"c0": …, "c4": …, "kvTokens": …}}}')
    .action(async (flags: Flags) => {
      try {
        const gpu = findGpu(loadGpus(flags.gpuFile), flags.gpu);
        const { gpuFile: _, ...options } = flags;
        const running = await startEmulator({ ...options, clock: realClock, gpu, onExit: () => process.exit(1) });
        announce(gpu, flags, running);
      } catch (error) {
        if (!(error instanceof LodestarError)) throw error;
        process.stderr.write(`lodestar engine: ${error.message}\n`);
        process.exitCode = 1;
      }
    });
}

function announce(gpu: GpuProfile, flags: Flags, running: RunningEmulator): void {
  const bends = `${gpu.T0 === undefined ? '' : ` T0=${gpu.T0}`}${gpu.c5 === undefined ? '' : ` c5=${gpu.c5}`}`;
  process.stderr.write(
    `lodestar engine: EMULATED vLLM, no model and no GPU: step times of ${gpu.key} (${gpu.status}), ` +
      `c0=${gpu.c0} c1=${gpu.c1} c2=${gpu.c2} c3=${gpu.c3} c4=${gpu.c4}${bends} ms, ` +
      `${flags.kvTokens ?? gpu.kvTokens} KV tokens, noise ${flags.noise}, serves ${flags.model} on ${running.url}\n`,
  );
  process.stdout.write(
    `${JSON.stringify({ listening: running.url, ...(running.kvEvents && { kvEvents: running.kvEvents }) })}\n`,
  );
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => void shutDown(running));
}

async function shutDown(running: RunningEmulator): Promise<void> {
  setTimeout(() => process.exit(0), CLOSE_MS).unref();
  try {
    await running.close();
  } catch (error) {
    process.stderr.write(`lodestar engine: ${errorMessage(error)}\n`);
  }
  process.exit(0);
}

function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (Number.isInteger(value) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`a whole number from ${min} to ${max} is needed.`);
  };
}

function realNumber(text: string): number {
  const value = Number(text);
  if (text !== '' && Number.isFinite(value) && value >= 0) return value;
  throw new InvalidArgumentError('a number of at least 0 is needed.');
}
