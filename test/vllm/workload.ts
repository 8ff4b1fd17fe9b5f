import { join } from 'node:path';
import { loadGpus, type GpuProfile } from '../../sim/engine/gpus.ts';
import { ENGINE_BLOCK_TOKENS, type SimRequest, simRequest } from '../../sim/fleet/plan.ts';
import { bundledTrace, pace, readTrace, simPrompt } from '../../sim/workloads/index.ts';
import { seededRng } from '../../shared/env.ts';
import { packageRoot } from '../../shared/package-root.ts';

/** One comparison: the instance and the traffic on it. */
export interface Load {
  name: string;
  gpu: GpuProfile;
  /** physical KV blocks, vLLM's null block included (`--num-gpu-blocks-override`) */
  blocks: number;
  maxNumSeqs: number;
  maxBatchedTokens: number;
  /** schedule a step while the one before it runs: vLLM's default on GPUs */
  asyncScheduling: boolean;
  requests: readonly SimRequest[];
}

interface LoadShape {
  name: string;
  trace: string;
  blocks: number;
  rps: number;
  requests: number;
  lengthScale: number;
  outputScale: number;
  asyncScheduling: boolean;
}

const CONVERSATION = {
  trace: bundledTrace,
  blocks: 2562,
  rps: 3,
  requests: 200,
  lengthScale: 1 / 16,
  outputScale: 0.25,
};
const AGENTS = {
  trace: join(packageRoot, 'sim/data/traces/lmcache-agent-part.tar.gz'),
  blocks: 400,
  rps: 5,
  requests: 350,
  lengthScale: 1,
  outputScale: 1,
};

/**
 * Loads on the same GPU, each 70 s long. In `conversation`, long prompts share little and the KV cache is large. In
 * `agents`, sessions share most of their prompts and the KV cache is small and full: requests wait for blocks, running
 * ones are preempted, cached blocks are evicted before they are asked for again. Each without and with async
 * scheduling. Tokens a second stay far below what vLLM's API server can stream on half a core.
 */
const SHAPES: readonly LoadShape[] = [
  { name: 'conversation', ...CONVERSATION, asyncScheduling: false },
  { name: 'agents', ...AGENTS, asyncScheduling: false },
  { name: 'conversation-async', ...CONVERSATION, asyncScheduling: true },
  { name: 'agents-async', ...AGENTS, asyncScheduling: true },
];

const SEED = 11;
const GPU = 'A30';
/** No prompt may fill more of the KV cache than this, so that several requests run at once. */
const MAX_PROMPT_SHARE = 1 / 3;
const MAX_PROMPT_TOKENS = 3000;
/** A single very long answer would decide the mean. */
const MAX_OUTPUT_TOKENS = 600;
const LONE_REQUESTS = 30;
const LONE_GAP_MS = 300;
const LONE_TOKENS = 1000;
/** Ids of the rig's vocabulary of 512 that no special token and no sampled token uses. */
const FIRST_TOKEN = 4;
const PROMPT_VOCABULARY = 250;

/** Tokens that requests can use: those of all blocks but the null block. */
export function kvTokens(load: Load): number {
  return (load.blocks - 1) * ENGINE_BLOCK_TOKENS;
}

/** The loads that are compared, the one without pressure on the KV cache first. */
export function fidelityLoads(): Load[] {
  const gpu = loadGpus().get(GPU);
  if (!gpu) throw new Error(`${GPU} is missing in the calibration`);
  return SHAPES.map((shape) => {
    const { name, blocks, asyncScheduling } = shape;
    return {
      name,
      gpu,
      blocks,
      maxNumSeqs: 64,
      maxBatchedTokens: 2048,
      asyncScheduling,
      requests: makeRequests(shape),
    };
  });
}

function makeRequests({ trace: file, lengthScale, outputScale, requests, rps, blocks }: LoadShape): SimRequest[] {
  const maxPromptTokens = Math.min(
    MAX_PROMPT_TOKENS,
    Math.floor((blocks - 1) * ENGINE_BLOCK_TOKENS * MAX_PROMPT_SHARE),
  );
  const trace = readTrace(file, { seed: SEED, lengthScale, outputScale, maxPromptTokens });
  const short = trace.requests.filter((request) => request.outputTokens <= MAX_OUTPUT_TOKENS).slice(0, requests);
  return pace(short, { rate: rps }).map((request, index) =>
    simRequest(index, request.arrivalMs, simPrompt(request, SEED).map(toVocabulary), request.outputTokens, ''),
  );
}

/**
 * The rig's model knows 512 tokens; those of a trace are numbers of 31 bits. Different blocks of 16 stay different but
 * for one chance in 250¹⁶.
 */
function toVocabulary(token: number): number {
  return FIRST_TOKEN + ((token >>> 3) % PROMPT_VOCABULARY);
}

/**
 * Requests that meet an idle instance and share nothing, to measure what the server spends on one outside its engine:
 * one token each, every 300 ms.
 */
export function loneRequests(load: Load): Load {
  const requests = load.requests
    .slice(0, LONE_REQUESTS)
    .map(({ prompt }, index) => simRequest(index, index * LONE_GAP_MS, lonePrompt(prompt.length, index), 1, ''));
  return { ...load, requests };
}

function lonePrompt(length: number, index: number): Int32Array {
  const prompt = new Int32Array(Math.min(length, LONE_TOKENS));
  const rng = seededRng(index + 1);
  return prompt.map(() => FIRST_TOKEN + Math.floor(rng() * PROMPT_VOCABULARY));
}
