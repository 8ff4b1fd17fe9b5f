import { z } from 'zod';
import { OBJECTIVE_NAMES } from '../choice/objectives/index.ts';
import { POLICY_NAMES } from '../choice/policies/index.ts';
import { originProblem } from '../door-url.ts';

const whyNotOrigin = ({ input }: { input?: unknown }): string => originProblem(String(input)) ?? '';
const httpUrl = z.string().refine((text) => originProblem(text) === undefined, { error: whyNotOrigin });
const optionalHttpUrl = z
  .string()
  .refine((text) => text === '' || originProblem(text) === undefined, { error: whyNotOrigin });
const optionalWsUrl = z
  .string()
  .refine((text) => text === '' || isUrl(text, ['ws:', 'wss:']), { error: 'is not a ws:// or wss:// URL' });
/** Ids travel in headers and metric labels, so they hold no spaces, commas or quotes. */
const id = z
  .string()
  .regex(/^[\w.:@/-]{0,128}$/, { error: 'may hold letters, digits and . _ : @ / - only, at most 128 of them' });
/** Where an agent connects to, in ZeroMQ's terms. */
const zmqEndpoint = z
  .string()
  .refine((text) => !text.includes('*'), {
    error: 'has a `*`, which is for the side that listens, vLLM; name the host here, for example tcp://127.0.0.1:5557',
  })
  .refine((text) => text.includes('*') || isZmqEndpoint(text), { error: 'is not tcp://<host>:<port> or ipc://<path>' });
const ms = z.int().min(1);
const count = z.int().min(1);

const policy = z.enum(POLICY_NAMES);
const objective = z.enum(OBJECTIVE_NAMES);

const instance = z.strictObject({
  id: id
    .default('')
    .describe(
      'Name of the instance in the fleet. Empty: `<agent id>:<port of url>`, and `:<dataParallelRank>` behind it where one is set.',
    ),
  url: httpUrl.describe('Base URL of the vLLM server, for example http://127.0.0.1:8000.'),
  apiKey: z.string().min(1).optional().describe('Key that this vLLM asks for (its `--api-key`).'),
  gpus: z
    .array(z.int().min(0))
    .optional()
    .describe('nvidia-smi indices of the GPUs it runs on. Absent: all of the host, if this is its only instance.'),
  kind: z
    .strictObject({
      gpu: z.string().min(1).optional().describe('GPU model, where nvidia-smi cannot tell it.'),
      quantisation: z.string().min(1).optional().describe('Quantisation of the weights, for example fp8.'),
      tensorParallel: count.optional().describe('GPUs that one engine uses together.'),
    })
    .prefault({})
    .describe('What the instance is, where it does not tell itself.'),
  maxNumSeqs: count.default(256).describe("vLLM's `--max-num-seqs`: sequences in one batch."),
  maxBatchedTokens: count.default(2048).describe("vLLM's `--max-num-batched-tokens`: tokens in one step."),
  kvTokens: count.optional().describe('KV cache size in tokens, where the metrics do not tell it.'),
  dataParallelRank: z
    .int()
    .min(0)
    .optional()
    .describe(
      'Which rank of a data-parallel vLLM it is, where several share one url. Absent: the url has one engine only.',
    ),
  kvEvents: z
    .strictObject({
      endpoint: zmqEndpoint.describe(
        'Where vLLM publishes KV events; setting it turns their use on: the `endpoint` of its `--kv-events-config`, with a host for `*`. dataParallelRank is added to the port.',
      ),
      replayEndpoint: zmqEndpoint
        .optional()
        .describe('Its `replay_endpoint`, likewise: lost events are asked for there. Absent: they stay lost.'),
    })
    .optional()
    .describe('KV events, for an exact view of the cache. Absent: the view is worked out from the requests.'),
});

const agent = z.strictObject({
  id: id.default('').describe('Name of this agent in the fleet. Empty: the host name.'),
  host: z.string().min(1).default('0.0.0.0').describe('Address to listen on.'),
  port: z.int().min(0).max(65535).default(8080).describe('Port for clients and for other agents. 0: any free port.'),
  advertiseUrl: optionalHttpUrl
    .default('')
    .describe('URL by which other agents reach this one. Empty: `http://<host name>:<port>`.'),
  brainUrl: optionalWsUrl.default('ws://127.0.0.1:7400').describe('Where the brain listens. Empty: no brain.'),
  stateDir: z
    .string()
    .min(1)
    .default('/var/lib/lodestar/agent')
    .describe('Folder for the last routing table and the identity of this agent.'),
  instances: z
    .array(instance)
    .max(64)
    .default([])
    .describe('The vLLM servers this agent is the door of. None: a pure entry point.'),
  policy: policy.optional().describe("Local policy that overrides the brain's. Absent: the brain decides."),
  objective: objective.default('ttft').describe('What a decision minimises when the brain does not say.'),
  bodyLimitBytes: z
    .int()
    .min(1024)
    .default(33_554_432)
    .describe('Largest request body in bytes; a larger one is answered 413.'),
  bodyTimeoutMs: ms
    .default(30_000)
    .describe(
      'Longest pause within a request body, and the time after which it must have come at 4 KiB/s; a slower one is answered 408.',
    ),
  bodyBudgetBytes: z
    .int()
    .min(1024)
    .default(268_435_456)
    .describe(
      'Memory for the bodies of all requests that this agent holds, in bytes; beyond it, requests are answered 503.',
    ),
  requestTimeoutMs: z
    .int()
    .min(0)
    .default(0)
    .describe(
      'Longest time for a whole request, in every attempt together; then it is answered 504. 0: none. Never held against the engine.',
    ),
  slowClientTimeoutMs: ms
    .default(120_000)
    .describe('Longest time that a client may leave a waiting answer unread before its request is ended.'),
  suspectAfterMs: z
    .int()
    .min(1000)
    .default(3000)
    .describe(
      'Silence of an engine, its checks included, after which what runs there is ended. New requests avoid it after 1 s.',
    ),
  stuckAfterMs: z
    .int()
    .min(1000)
    .default(60_000)
    .describe(
      'Time without any movement in an engine that has work, while it answers its checks, after which what runs there is ended.',
    ),
  firstByteTimeoutMs: ms
    .optional()
    .describe(
      'Has no effect any more: how long to wait is decided on facts (docs/request-lifecycle.md). Accepted for one version.',
    ),
  idleTimeoutMs: ms.optional().describe('Has no effect any more, as `firstByteTimeoutMs`.'),
  connectTimeoutMs: ms.default(1000).describe('Longest wait for a connection to a door or an instance.'),
  retries: z
    .int()
    .min(0)
    .max(16)
    .default(2)
    .describe('Further instances tried while no byte of an answer has arrived.'),
  maxInFlight: count.default(4096).describe('Requests this entry holds at once; further ones are answered 503.'),
  drainTimeoutMs: ms.default(30_000).describe('Longest wait for running requests after SIGTERM.'),
  staleAfterMs: ms.default(2000).describe('Age at which the state of an instance no longer counts as known.'),
  reportRefreshMs: ms.default(250).describe('Age at which a load report is fetched anew from its door.'),
  breaker: z
    .strictObject({
      failures: count.default(3).describe('Failures in a row that open the breaker of a link.'),
      openMs: ms.default(1000).describe('First pause of an open breaker; it doubles with each further failure.'),
      maxOpenMs: ms.default(30_000).describe('Longest pause of an open breaker.'),
    })
    .prefault({})
    .describe('Keeps requests away from a link that fails.'),
  scrape: z
    .strictObject({
      metricsPeriodMs: ms.default(1000).describe("Period of reading vLLM's /metrics."),
      gpuPeriodMs: ms.default(500).describe('Period of GPU samples.'),
      hostPeriodMs: ms.default(2000).describe('Period of CPU and memory samples.'),
      healthPeriodMs: ms.default(250).describe("Period of asking vLLM's /health."),
    })
    .prefault({})
    .describe('How often the collectors look.'),
  nvidiaSmiPath: z
    .string()
    .min(1)
    .default('nvidia-smi')
    .describe('The nvidia-smi executable: a name on PATH or a path.'),
  telemetryMinMs: ms.default(20).describe('Shortest time between two telemetry frames to the brain.'),
  sampleQueueMax: count
    .default(20_000)
    .describe('Samples kept while the brain is away; the oldest are dropped and counted beyond it.'),
  receiptsMax: count.default(1000).describe('Decision receipts kept for inspection.'),
});

const brain = z.strictObject({
  host: z.string().min(1).default('0.0.0.0').describe('Address to listen on.'),
  port: z.int().min(0).max(65535).default(7400).describe('Port for agents and for the status pages. 0: any free port.'),
  stateDir: z
    .string()
    .min(1)
    .default('/var/lib/lodestar/brain')
    .describe('Folder of the store: routing table, model, experience.'),
  policy: policy
    .default('learned')
    .describe('Policy of the fleet. `learned` gives way to `lmetric` where predictions turn out wrong.'),
  objective: objective.default('ttft').describe('What a decision minimises.'),
  exploration: z
    .number()
    .min(0)
    .max(1)
    .default(0.01)
    .describe('Share of decisions drawn at random among the allowed instances.'),
  backend: z
    .enum(['auto', 'tfjs-node-gpu', 'wasm', 'cpu'])
    .default('auto')
    .describe('TensorFlow.js backend for training. auto: the first of the list that starts.'),
  tfjsNodeGpuDir: z
    .string()
    .default('')
    .describe('Folder that holds node_modules/@tensorflow/tfjs-node-gpu. Empty: the installed package, if any.'),
  gpuMemoryLimitMb: count.default(512).describe('GPU memory that training may take, in MiB.'),
  learn: z
    .strictObject({
      roundMs: ms.default(5000).describe('Period of training rounds.'),
      minNewSamples: count.default(32).describe('New samples that a round needs.'),
      recencySize: count.default(8192).describe('Newest samples kept for training.'),
      diversitySize: count.default(4096).describe('Samples kept because they are rare.'),
      maxAgeMs: ms.default(1_800_000).describe('Age at which a sample leaves the experience.'),
      hidden: z
        .array(z.int().min(4).max(256).multipleOf(4))
        .min(1)
        .max(4)
        .default([32, 32])
        .describe('Widths of the hidden layers: multiples of 4, at most 256.'),
    })
    .prefault({})
    .describe('The learner.'),
  trust: z
    .strictObject({
      minSamples: count.default(40).describe('Live predictions that must be scored before trust is possible.'),
      maxMedianApe: z
        .number()
        .gt(0)
        .max(10)
        .default(0.35)
        .describe('Largest median absolute error, as a share of the observed value, that earns trust.'),
    })
    .prefault({})
    .describe('When learned scores may decide.'),
  maxFrameBytes: z.int().min(65_536).default(8_388_608).describe('Largest frame accepted from an agent, in bytes.'),
  maxAgents: count.default(512).describe('Agents that may be connected at once.'),
});

/** The configuration file as it may be written: the one declaration of every key, its range, default and meaning. */
export const configSchema = z.strictObject({
  logLevel: z
    .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
    .default('info')
    .describe('Least severe log line that is written.'),
  token: z
    .string()
    .min(16)
    .regex(/^[\x21-\x7e]*$/, { error: 'holds a space or a character outside ASCII' })
    .optional()
    .describe('Secret that all agents and the brain of a fleet share, at least 16 characters.'),
  tokenFile: z
    .string()
    .min(1)
    .optional()
    .describe('File that holds the token instead; relative to the configuration file.'),
  agent: agent.prefault({}).describe('The agent: door of its instances and entry to the fleet.'),
  brain: brain.prefault({}).describe('The brain: collects, learns, publishes routing tables.'),
});

type Parsed = z.output<typeof configSchema>;

export type BrainConfig = Parsed['brain'];
export type AgentConfig = Parsed['agent'];
export type InstanceConfig = AgentConfig['instances'][number];

/** A complete configuration: defaults filled in, derived names resolved, token present. */
export interface Config {
  logLevel: Parsed['logLevel'];
  token: string;
  agent: AgentConfig;
  brain: BrainConfig;
}

function isZmqEndpoint(text: string): boolean {
  const port = /^tcp:\/\/[^\s/]+:(\d{1,5})$/.exec(text)?.[1];
  return /^ipc:\/\/\S+$/.test(text) || (port !== undefined && Number(port) >= 1 && Number(port) <= 65535);
}

function isUrl(text: string, protocols: readonly string[]): boolean {
  return URL.canParse(text) && protocols.includes(new URL(text).protocol);
}
