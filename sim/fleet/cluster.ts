import { readFileSync } from 'node:fs';
import { parse as parseYaml, YAMLParseError } from 'yaml';
import { z } from 'zod';
import { errorMessage, LodestarError } from '../../shared/errors.ts';
import { type GpuProfile, loadGpus } from '../engine/gpus.ts';
import { STEP_LAWS, type StepLawName } from '../engine/step-laws.ts';

/** One simulated vLLM instance and the GPU it runs on. */
export interface ClusterInstance {
  /** `i0`, `i1`, … in the order of the file. */
  id: string;
  gpu: GpuProfile;
  maxNumSeqs: number;
  maxBatchedTokens: number;
  /** vLLM's `--async-scheduling`: a step is scheduled while the one before it runs. */
  asyncScheduling: boolean;
  /** KV cache in tokens: the instance's own, or the GPU's. */
  kvTokens: number;
}

/** What happens to an instance at a time. */
export type ClusterEvent =
  /** The engine dies with its requests; it is back, empty, `restart` seconds later, or never. */
  | { atS: number; kind: 'die'; instance: number; restart: number | undefined }
  /** The instance is absent before. */
  | { atS: number; kind: 'join'; instance: number }
  /** Steps last `factor` times as long from now on; 1 ends it. */
  | { atS: number; kind: 'throttle'; instance: number; factor: number }
  /**
   * The engine dies with its requests, and at once one with another model or on another GPU takes its place: empty,
   * with that GPU's step times and KV cache.
   */
  | { atS: number; kind: 'swap'; instance: number; gpu: GpuProfile }
  | { atS: number; kind: 'clear-cache'; instance: number };

export interface Cluster {
  instances: ClusterInstance[];
  /** One-way delays: from an entry to a door, and between an agent and the brain. */
  network: { hopMs: number; brainMs: number };
  /** What an engine spends on a request before its scheduler sees it. */
  frontEndMs: number;
  stepLaw: StepLawName;
  /** In order of time. */
  events: ClusterEvent[];
}

const MAX_INSTANCES = 1024;
/** An instance below this could not hold a prompt worth routing. */
const MIN_KV_TOKENS = 256;

const positive = z.number().positive();
const notNegative = z.number().min(0);
const kvTokens = z.number().int().min(MIN_KV_TOKENS);

const gpuSchema = z.strictObject({
  c0: positive.optional(),
  c1: notNegative.optional(),
  c2: notNegative.optional(),
  c3: notNegative.optional(),
  c4: notNegative.optional(),
  T0: notNegative.optional(),
  c5: notNegative.optional(),
  kvTokens: kvTokens.optional(),
  memoryGiB: positive.optional(),
  // An entry may be a copy of one of the catalogue's, which also says where it comes from.
  ...Object.fromEntries(
    ['gpu', 'model', 'tensorParallel', 'dtype', 'kvStatus', 'status', 'source', 'note', 'fitError', 'hardware'].map(
      (name) => [name, z.unknown().optional()],
    ),
  ),
});

const instanceSchema = z.strictObject({
  gpu: z.string(),
  count: z.number().int().min(1).max(MAX_INSTANCES).default(1),
  maxNumSeqs: z.number().int().min(1).max(4096).default(256),
  maxBatchedTokens: z
    .number()
    .int()
    .min(16)
    .max(1 << 20)
    .default(2048),
  asyncScheduling: z.boolean().default(false),
  kvTokens: kvTokens.optional(),
});

const at = { atS: notNegative, instance: z.number().int().min(0) };
const eventSchema = z.discriminatedUnion('kind', [
  z.strictObject({ ...at, kind: z.literal('die'), restart: positive.optional() }),
  z.strictObject({ ...at, kind: z.literal('join') }),
  z.strictObject({ ...at, kind: z.literal('throttle'), factor: positive }),
  z.strictObject({ ...at, kind: z.literal('swap'), gpu: z.string() }),
  z.strictObject({ ...at, kind: z.literal('clear-cache') }),
]);

const clusterSchema = z.strictObject({
  gpus: z.record(z.string(), gpuSchema).default({}),
  instances: z.array(instanceSchema).min(1),
  network: z.strictObject({ hopMs: notNegative.default(0.3), brainMs: notNegative.default(0.5) }).prefault({}),
  frontEndMs: notNegative.default(8),
  stepLaw: z.enum(STEP_LAWS).default('rough'),
  events: z.array(eventSchema).default([]),
});

type ClusterFile = z.infer<typeof clusterSchema>;

/** Fields that a GPU outside the catalogue must give. */
const REQUIRED_OF_GPU = ['c0', 'c1', 'c2', 'c3', 'c4', 'kvTokens'] as const;

/** Reads a cluster file; see `parseCluster`. */
export function readCluster(file: string): Cluster {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new LodestarError('CONFIG_INVALID', `cannot read the cluster file ${file}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
  return parseCluster(text, file);
}

/**
 * The cluster that a YAML or JSON text describes, with defaults filled in and counts expanded. Throws CONFIG_INVALID
 * naming file, field and fix.
 */
export function parseCluster(text: string, name: string): Cluster {
  const parsed = clusterSchema.safeParse(parseTree(text, name));
  if (!parsed.success) throw invalid(name, explain(parsed.error.issues[0]!));
  const file = parsed.data;
  const gpus = mergeGpus(file.gpus, name);
  const instances = expandInstances(file.instances, gpus, name);
  const events = file.events
    .map((event, index) => toEvent(event, index, instances.length, gpus, name))
    .toSorted((a, b) => a.atS - b.atS);
  return { instances, network: file.network, frontEndMs: file.frontEndMs, stepLaw: file.stepLaw, events };
}

function parseTree(text: string, name: string): unknown {
  try {
    return parseYaml(text) ?? {};
  } catch (error) {
    const line = error instanceof YAMLParseError && error.linePos ? ` line ${error.linePos[0].line}` : '';
    throw new LodestarError('CONFIG_INVALID', `cluster file ${name}${line}: is not YAML: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

function mergeGpus(given: ClusterFile['gpus'], name: string): Map<string, GpuProfile> {
  const gpus = loadGpus();
  for (const [key, entry] of Object.entries(given)) {
    const { c0, c1, c2, c3, c4, T0, c5, kvTokens: tokens, memoryGiB } = entry;
    const base = gpus.get(key);
    const missing = REQUIRED_OF_GPU.filter((field) => entry[field] === undefined);
    if (!base && missing.length > 0) {
      throw invalid(
        name,
        `gpus.${key}: ${missing.join(', ')} missing; a GPU outside the catalogue (${[...gpus.keys()].join(', ')}) needs ${REQUIRED_OF_GPU.join(', ')}`,
      );
    }
    const set = Object.fromEntries(
      Object.entries({ c0, c1, c2, c3, c4, T0, c5, kvTokens: tokens, memoryGiB }).filter(
        ([, value]) => value !== undefined,
      ),
    );
    gpus.set(key, { ...(base ?? newGpu(key, memoryGiB ?? 80)), ...set });
  }
  return gpus;
}

/** What a GPU that only the file knows has beside its coefficients. */
function newGpu(key: string, memoryGiB: number): GpuProfile {
  const hardware = { name: `Emulated ${key}`, memoryMiB: memoryGiB * 1024, powerLimitW: 300, maxSmClockMhz: 1500 };
  return { key, memoryGiB, status: 'given by the user', hardware, kvTokens: 0, c0: 0, c1: 0, c2: 0, c3: 0, c4: 0 };
}

function expandInstances(
  entries: ClusterFile['instances'],
  gpus: Map<string, GpuProfile>,
  name: string,
): ClusterInstance[] {
  const instances: ClusterInstance[] = [];
  for (const [
    index,
    { gpu: key, count, maxNumSeqs, maxBatchedTokens, asyncScheduling, kvTokens: own },
  ] of entries.entries()) {
    const gpu = gpuOf(gpus, key, `instances[${index}].gpu`, name);
    for (let copy = 0; copy < count; copy++)
      instances.push({
        id: `i${instances.length}`,
        gpu,
        maxNumSeqs,
        maxBatchedTokens,
        asyncScheduling,
        kvTokens: own ?? gpu.kvTokens,
      });
  }
  if (instances.length > MAX_INSTANCES)
    throw invalid(name, `instances: ${instances.length} in all; at most ${MAX_INSTANCES} are simulated`);
  return instances;
}

function gpuOf(gpus: Map<string, GpuProfile>, key: string, field: string, name: string): GpuProfile {
  const gpu = gpus.get(key);
  if (!gpu)
    throw invalid(
      name,
      `${field}: unknown GPU '${key}'; known are ${[...gpus.keys()].join(', ')}, and \`gpus:\` adds others`,
    );
  return gpu;
}

function toEvent(
  event: ClusterFile['events'][number],
  index: number,
  instances: number,
  gpus: Map<string, GpuProfile>,
  name: string,
): ClusterEvent {
  if (event.instance >= instances) {
    throw invalid(
      name,
      `events[${index}].instance: there is no instance ${event.instance}; the cluster has 0 to ${instances - 1}, counted in the order of \`instances:\``,
    );
  }
  if (event.kind === 'die') return { ...event, restart: event.restart };
  if (event.kind === 'swap') return { ...event, gpu: gpuOf(gpus, event.gpu, `events[${index}].gpu`, name) };
  // A GPU throttled to a half and one slowed by two are the same.
  return event.kind === 'throttle' ? { ...event, factor: event.factor < 1 ? 1 / event.factor : event.factor } : event;
}

function explain(issue: z.core.$ZodIssue): string {
  const path = issue.path
    .map((part, depth) => (typeof part === 'number' ? `[${part}]` : `${depth === 0 ? '' : '.'}${String(part)}`))
    .join('');
  const where = path === '' ? '' : `${path}: `;
  if (issue.code === 'unrecognized_keys')
    return `${where}unknown field ${issue.keys.map((key) => `\`${key}\``).join(', ')}; known here: ${knownFields(issue.path).join(', ')}`;
  if (issue.code === 'invalid_union' && issue.path.at(-1) === 'kind')
    return `${where}must be one of die, join, throttle, swap, clear-cache`;
  return `${where}${issue.message}`;
}

function knownFields(path: readonly PropertyKey[]): string[] {
  if (path[0] === 'gpus') return [...REQUIRED_OF_GPU, 'T0', 'c5', 'memoryGiB'];
  if (path[0] === 'instances') return Object.keys(instanceSchema.shape);
  if (path[0] === 'network') return ['hopMs', 'brainMs'];
  if (path[0] === 'events')
    return ['atS', 'kind', 'instance', '`factor` of a throttle', '`gpu` of a swap', '`restart` of a die'];
  return Object.keys(clusterSchema.shape);
}

function invalid(name: string, problem: string): LodestarError {
  return new LodestarError('CONFIG_INVALID', `cluster file ${name}: ${problem}`);
}
