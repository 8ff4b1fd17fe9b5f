import { z } from 'zod';
import { bytesSchema } from './codec.ts';
import { LodestarError } from './errors.ts';
import type { InstanceReport } from './instance.ts';
import { type NoteFault, readReports } from './report.ts';
import { sampleSchema } from './sample.ts';
import { firstIssue, sealedTableSchema } from './table.ts';

/** Wire protocol between agent and brain; docs/protocol.md lists every message. */
export const PROTOCOL_VERSION = 3;
export const PROTOCOL_OLDEST = 1;

/** Largest frame either side accepts. */
export const MAX_FRAME_BYTES = 8 * 1024 * 1024;
/**
 * Reports are sent in frames of about this size at most, in bytes, so that whatever else is in a frame never takes it
 * over the limit.
 */
export const REPORTS_FRAME_BYTES = 4 * 1024 * 1024;
/** Most reports, and most ids of instances, in one frame. */
export const MAX_REPORTS_PER_FRAME = 4096;
/** Most samples in one frame, and most block hashes in one delta. */
export const MAX_SAMPLES_PER_FRAME = 512;
export const MAX_HASHES_PER_FRAME = 65_536;

const id = z.string().min(1).max(256);
const count = z.number().int().nonnegative();
/** Judged one by one when the message is read (shared/report.ts): a bad one must not cost the others. */
const reports = z.array(z.custom<InstanceReport>()).max(MAX_REPORTS_PER_FRAME);

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
  doorUrl: z.string().max(2048),
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
  z.object({ t: z.literal('telemetry'), seq: count, reports }),
  z.object({
    t: z.literal('samples'),
    batch: count,
    dropped: count,
    samples: z.array(sampleSchema).max(MAX_SAMPLES_PER_FRAME),
  }),
  blocksSchema,
  /** asks for the whole state again after a gap; `blocks` names the instances whose deltas broke off */
  z.object({ t: z.literal('resync'), blocks: z.array(id).max(MAX_REPORTS_PER_FRAME) }),
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
  /**
   * `full`: every instance there is; otherwise those that changed. `gone` left the fleet. A whole state that is too
   * large for a frame comes in `parts` messages of one `seq`, of which this is number `part`, from 0; earlier versions
   * know neither field.
   */
  z.object({
    t: z.literal('state'),
    seq: count,
    full: z.boolean(),
    part: count.default(0),
    parts: z.number().int().min(1).default(1),
    reports,
    gone: z.array(id).max(MAX_REPORTS_PER_FRAME),
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

const ignore: NoteFault = () => undefined;

/**
 * Validates a decoded frame; `note` is told of the reports in it that do not fit and are left out. Errors:
 * WIRE_MALFORMED with the path of the first problem.
 */
export function parseAgentMessage(raw: unknown, note: NoteFault = ignore): AgentMessage {
  return parse(agentMessageSchema, raw, note);
}

/**
 * Validates a decoded frame; `note` is told of the reports in it that do not fit and are left out. Errors:
 * WIRE_MALFORMED with the path of the first problem.
 */
export function parseBrainMessage(raw: unknown, note: NoteFault = ignore): BrainMessage {
  return parse(brainMessageSchema, raw, note);
}

function parse<T extends AgentMessage | BrainMessage>(schema: z.ZodType<T>, raw: unknown, note: NoteFault): T {
  const result = schema.safeParse(raw);
  if (!result.success)
    throw new LodestarError('WIRE_MALFORMED', `bad message: ${firstIssue(result.error)}`, { cause: result.error });
  const message = result.data;
  if ('reports' in message) message.reports = readReports(message.reports, note);
  return message;
}
