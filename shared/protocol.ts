import { z } from 'zod';
import { bytesSchema } from './codec.ts';
import { LodestarError } from './errors.ts';
import { CACHE_SOURCES } from './instance.ts';
import { GENERIC_LAW, isPossibleLaw } from './predictor/step-law.ts';
import { sampleSchema } from './sample.ts';
import { firstIssue, sealedTableSchema } from './table.ts';

/** Wire protocol between agent and brain. N and N − 1 are spoken; docs/protocol.md lists every message. */
export const PROTOCOL_VERSION = 2;
export const PROTOCOL_OLDEST = 1;

/** Largest frame either side accepts. */
export const MAX_FRAME_BYTES = 8 * 1024 * 1024;
/** Most samples in one frame, and most block hashes in one delta. */
export const MAX_SAMPLES_PER_FRAME = 512;
export const MAX_HASHES_PER_FRAME = 65_536;

const id = z.string().min(1).max(256);
const count = z.number().int().nonnegative();
const ratio = z.number().min(0).max(16);
/** Bounded, so that sums and products of a report's numbers stay finite. */
const finite = z.number().min(0).max(1e15);

const seenSchema = z.object({ entry: id, epoch: count, upTo: z.number().int().min(-1), later: count });

/** Shape of InstanceReport (shared/instance.ts). */
export const reportSchema = z.object({
  instance: id,
  agent: id,
  doorUrl: z.url(),
  incarnation: count,
  seq: count,
  ageMs: finite,
  health: z.enum(['up', 'starting', 'down']),
  draining: z.boolean(),
  models: z.array(z.string().max(256)).max(1024),
  kind: z.string().max(256),
  limits: z.object({
    kvTokens: finite,
    blockTokens: finite,
    maxNumSeqs: finite,
    maxBatchedTokens: finite,
    maxModelLen: finite,
  }),
  ledger: z.object({
    inFlight: finite,
    waiting: finite,
    prefilling: finite,
    decoding: finite,
    pendingTokens: finite,
    waitingTokens: finite,
    pendingPromptTokens: finite,
    decodeContextTokens: finite,
    usedTokens: finite,
    workRatio: finite,
    meanOutputTokens: finite,
    // Absent in reports of earlier versions.
    stepAgeMs: z.number().default(-1),
  }),
  // A law that no engine can have would draw every request to its instance, or none: the rest of the report holds
  // without it.
  law: z
    .object({
      c0: finite,
      c1: finite,
      c2: finite,
      c3: finite,
      c4: finite,
      // Absent in reports of earlier versions.
      c5: finite.default(0),
      t0: finite.default(0),
      frontEndMs: finite,
      samples: finite,
      residualMs: finite,
    })
    .transform((law) => (isPossibleLaw(law) ? law : GENERIC_LAW)),
  // Absent in reports of protocol 1.
  cache: z
    .object({
      source: z.enum(CACHE_SOURCES),
      problem: z.string().max(512),
      blocks: finite,
      offloadedBlocks: finite,
      hitRatio: ratio,
      accuracyRatio: ratio,
      checked: finite,
    })
    .nullable()
    .default(null),
  engine: z.object({ running: finite, waiting: finite, kvUsageRatio: ratio, ageMs: finite }).nullable(),
  gpu: z
    .object({
      utilRatio: ratio,
      memUsedRatio: ratio,
      smClockRatio: ratio,
      powerRatio: ratio,
      temperatureC: z.number(),
      ageMs: finite,
    })
    .nullable(),
  host: z.object({ cpuRatio: ratio, memUsedRatio: ratio }).nullable(),
  seen: z.array(seenSchema).max(256),
});

/** What both sides keep of an agent's name tag. */
export const helloSchema = z.object({
  t: z.literal('hello'),
  protocol: count,
  protocolOldest: count,
  featureSchema: count,
  agent: id,
  /** boot epoch: a newer one of the same agent replaces the older connection */
  epoch: count,
  /** secret of this agent id, made at its first start: a stranger cannot take the id over */
  credential: z.string().min(16).max(256),
  version: z.string().max(64),
  doorUrl: z.url(),
  capabilities: z.array(z.string().max(64)).max(64),
});

export const blocksSchema = z.object({
  t: z.literal('blocks'),
  instance: id,
  incarnation: count,
  /** counts the deltas of one incarnation from 0; a reset starts a new view whatever came before */
  seq: count,
  reset: z.boolean(),
  /** float64 little-endian hashes (shared/codec.ts) */
  add: bytesSchema.refine((b) => b.byteLength % 8 === 0 && b.byteLength <= MAX_HASHES_PER_FRAME * 8),
  remove: bytesSchema.refine((b) => b.byteLength % 8 === 0 && b.byteLength <= MAX_HASHES_PER_FRAME * 8),
  /**
   * uint32 little-endian, one for each of `add`: prompt tokens from the start of the prompt to the end of the block; 0,
   * or absent as in protocol 1: not known
   */
  tokens: bytesSchema
    .refine((b) => b.byteLength % 4 === 0 && b.byteLength <= MAX_HASHES_PER_FRAME * 4)
    .default(() => new Uint8Array(0)),
});

export const agentMessageSchema = z.discriminatedUnion('t', [
  helloSchema,
  z.object({ t: z.literal('telemetry'), seq: count, reports: z.array(reportSchema).max(256) }),
  z.object({
    t: z.literal('samples'),
    batch: count,
    dropped: count,
    samples: z.array(sampleSchema).max(MAX_SAMPLES_PER_FRAME),
  }),
  blocksSchema,
  /** asks for the whole state again after a gap; `blocks` names the instances whose deltas broke off */
  z.object({ t: z.literal('resync'), blocks: z.array(id).max(4096) }),
]);

export const brainMessageSchema = z.discriminatedUnion('t', [
  z.object({
    t: z.literal('welcome'),
    protocol: count,
    brainEpoch: count,
    /** seeds the fleet's prefix hashes: hex, 32 bytes */
    salt: z.string().length(64),
    table: sealedTableSchema.nullable(),
  }),
  z.object({ t: z.literal('refuse'), code: z.string().max(64), reason: z.string().max(512) }),
  z.object({ t: z.literal('table'), table: sealedTableSchema }),
  /** `full`: every instance there is; otherwise those that changed. `gone` left the fleet. */
  z.object({
    t: z.literal('state'),
    seq: count,
    full: z.boolean(),
    reports: z.array(reportSchema).max(4096),
    gone: z.array(id).max(4096),
  }),
  blocksSchema,
  z.object({ t: z.literal('ack'), batch: count }),
  /** asks a door to send the whole view of an instance as a reset */
  z.object({ t: z.literal('resend-blocks'), instance: id }),
]);

export type AgentMessage = z.infer<typeof agentMessageSchema>;
export type BrainMessage = z.infer<typeof brainMessageSchema>;
export type HelloMessage = z.infer<typeof helloSchema>;
export type BlocksMessage = z.infer<typeof blocksSchema>;

/** Validates a decoded frame. Errors: WIRE_MALFORMED with the path of the first problem. */
export function parseAgentMessage(raw: unknown): AgentMessage {
  return parse(agentMessageSchema, raw);
}

/** Validates a decoded frame. Errors: WIRE_MALFORMED with the path of the first problem. */
export function parseBrainMessage(raw: unknown): BrainMessage {
  return parse(brainMessageSchema, raw);
}

function parse<T>(schema: z.ZodType<T>, raw: unknown): T {
  const result = schema.safeParse(raw);
  if (!result.success)
    throw new LodestarError('WIRE_MALFORMED', `bad message: ${firstIssue(result.error)}`, { cause: result.error });
  return result.data;
}
