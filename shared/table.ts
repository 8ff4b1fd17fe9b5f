import { createHash } from 'node:crypto';
import { z } from 'zod';
import { OBJECTIVE_NAMES } from './choice/objectives/index.ts';
import { POLICY_NAMES } from './choice/policies/index.ts';
import { bytesSchema, decode, encode } from './codec.ts';
import { originProblem } from './door-url.ts';
import { errorMessage, LodestarError } from './errors.ts';
import { FEATURE_COUNT, FEATURE_SCHEMA } from './features.ts';
import { HEAD_COUNT, MAX_LAYER_WIDTH, MAX_LAYERS, type ResidualNet } from './predictor/net.ts';
import { NARROW_NAME_BOUNDS, type NoteFault } from './report.ts';
import { REGIMES } from './sample.ts';

const positive = z.number().positive();
const nonNegative = z.number().nonnegative();

const lawSchema = z.object({
  c0: nonNegative,
  c1: nonNegative,
  c2: nonNegative,
  c3: nonNegative,
  c4: nonNegative,
  // Absent in tables of earlier versions.
  c5: nonNegative.default(0),
  t0: nonNegative.default(0),
  frontEndMs: nonNegative,
  samples: nonNegative,
  residualMs: nonNegative,
});

const weightsSchema = z.object({
  queue: nonNegative,
  busy: nonNegative,
  decode: nonNegative,
  paceTokens: nonNegative,
  kv: nonNegative,
  block: nonNegative,
});

const layerSchema = z
  .object({
    inputs: z.number().int().min(1).max(MAX_LAYER_WIDTH),
    outputs: z.number().int().min(1).max(MAX_LAYER_WIDTH).multipleOf(4),
    weights: bytesSchema,
    bias: bytesSchema,
  })
  .refine(
    (layer) => layer.weights.byteLength === layer.inputs * layer.outputs * 4,
    'weights must hold inputs × outputs float32',
  )
  .refine((layer) => layer.bias.byteLength === layer.outputs * 4, 'bias must hold outputs float32');

const netSchema = z
  .object({
    shift: bytesSchema.refine((b) => b.byteLength === FEATURE_COUNT * 4),
    scale: bytesSchema.refine((b) => b.byteLength === FEATURE_COUNT * 4),
    layers: z.array(layerSchema).min(1).max(MAX_LAYERS),
  })
  .refine(
    (net) => net.layers[0]?.inputs === FEATURE_COUNT && net.layers.at(-1)?.outputs === HEAD_COUNT,
    'ends of the net do not fit the schema',
  )
  .refine(
    (net) => net.layers.every((layer, i) => i === 0 || layer.inputs === net.layers[i - 1]?.outputs),
    'layers do not fit together',
  );

const rosterEntrySchema = z.object({
  instance: z.string().min(1).max(256),
  agent: z.string().min(1).max(256),
  doorUrl: z
    .string()
    .refine((url) => originProblem(url) === undefined, { error: 'is not the http:// or https:// URL of a host' }),
  models: z.array(z.string().max(NARROW_NAME_BOUNDS.nameChars)).max(NARROW_NAME_BOUNDS.names),
  kind: z.string().max(256),
});

export const trustSchema = z.object({
  /** learning: too few outcomes to say; the physics prior routes meanwhile */
  verdict: z.enum(['learning', 'trusted', 'untrusted']),
  reason: z.string().max(256),
  /** live outcomes behind the verdict */
  samples: z.number().int().nonnegative(),
  /** median absolute percentage error of TTFT on them; null until there are some */
  medianApe: nonNegative.nullable(),
  /** share of outcomes at or under the predicted 90th percentile */
  p90Coverage: z.number().min(0).max(1).nullable(),
  regimes: z.record(z.enum(REGIMES), z.enum(['trusted', 'untrusted', 'unknown'])),
});
export type Trust = z.infer<typeof trustSchema>;

/** All an agent needs to route alone. */
export const tableSchema = z.object({
  version: z.number().int().nonnegative(),
  atWallMs: nonNegative,
  featureSchema: z.number().int(),
  roster: z.array(rosterEntrySchema).max(4096),
  policy: z.enum(POLICY_NAMES),
  objective: z.enum(OBJECTIVE_NAMES),
  weights: weightsSchema,
  exploration: z.number().min(0).max(1),
  net: netSchema.nullable(),
  /** p90 / mean of TTFT and TPOT while there is no net */
  p90Factor: z.object({ ttft: positive, tpot: positive }),
  laws: z.object({ fleet: lawSchema, kinds: z.record(z.string(), lawSchema) }),
  meanOutputTokens: z.object({ fleet: positive, models: z.record(z.string(), positive) }),
  /** bytes of canonical prompt text per token, by model */
  bytesPerToken: z.record(z.string(), positive),
  trust: trustSchema,
});

export type RoutingTable = z.infer<typeof tableSchema>;
export type RosterEntry = z.infer<typeof rosterEntrySchema>;

/** A table as it travels and lies on disk: the encoded body and the SHA-256 of its bytes, in hex. */
export const sealedTableSchema = z.object({ checksum: z.string(), body: bytesSchema });
export type SealedTable = z.infer<typeof sealedTableSchema>;

/** Largest encoded table: 4,096 instances and the widest net stay far below it. */
export const MAX_TABLE_BYTES = 8 * 1024 * 1024;

export function sealTable(table: RoutingTable): SealedTable {
  const body = encode(table);
  return { checksum: checksumOf(body), body };
}

/**
 * Opens and validates a table; `note` is told of instances in it that do not fit and are left out. Errors:
 * TABLE_CORRUPT (checksum, shape, or a feature schema that this version does not speak).
 */
export function openTable(sealed: SealedTable, note: NoteFault = () => undefined): RoutingTable {
  if (checksumOf(sealed.body) !== sealed.checksum)
    throw new LodestarError('TABLE_CORRUPT', 'checksum of the routing table does not match');
  const parsed = tableSchema.safeParse(withoutMisfits(decodeBody(sealed.body), note));
  if (!parsed.success)
    throw new LodestarError('TABLE_CORRUPT', `routing table: ${firstIssue(parsed.error)}`, { cause: parsed.error });
  if (parsed.data.featureSchema !== FEATURE_SCHEMA) {
    throw new LodestarError(
      'TABLE_CORRUPT',
      `routing table has feature schema ${parsed.data.featureSchema}, this version speaks ${FEATURE_SCHEMA}`,
    );
  }
  return parsed.data;
}

/** One instance with a bad address must not cost the fleet its table. */
function withoutMisfits(body: unknown, note: NoteFault): unknown {
  const { roster } = (body ?? {}) as { roster?: unknown };
  if (!Array.isArray(roster)) return body;
  const fitting = (roster as unknown[]).filter((entry) => {
    const { error } = rosterEntrySchema.safeParse(entry);
    if (!error) return true;
    const instance = (entry as { instance?: unknown } | null)?.instance;
    note({
      instance: typeof instance === 'string' ? instance.slice(0, 256) : undefined,
      problem: `${firstIssue(error)}, in the routing table`,
    });
    return false;
  });
  return { ...(body as object), roster: fitting };
}

function decodeBody(body: Uint8Array): unknown {
  try {
    return decode(body, MAX_TABLE_BYTES);
  } catch (error) {
    throw new LodestarError('TABLE_CORRUPT', `routing table: ${errorMessage(error)}`, { cause: error });
  }
}

/** First problem that zod found, with its path. */
export function firstIssue(error: z.ZodError): string {
  const issue = error.issues[0];
  return issue ? `${issue.path.join('.') || '(root)'}: ${issue.message}` : 'invalid';
}

/** The table's net with typed arrays, or null. */
export function tableNet(table: RoutingTable): ResidualNet | null {
  if (!table.net) return null;
  return {
    shift: toFloats(table.net.shift),
    scale: toFloats(table.net.scale),
    layers: table.net.layers.map((layer) => ({
      ...layer,
      weights: toFloats(layer.weights),
      bias: toFloats(layer.bias),
    })),
  };
}

/** The reverse: a net as the table carries it. */
export function packNet(net: ResidualNet): NonNullable<RoutingTable['net']> {
  return {
    shift: toBytes(net.shift),
    scale: toBytes(net.scale),
    layers: net.layers.map((layer) => ({ ...layer, weights: toBytes(layer.weights), bias: toBytes(layer.bias) })),
  };
}

/** Float32 values of unaligned bytes. */
function toFloats(raw: Uint8Array): Float32Array {
  return new Float32Array(Uint8Array.from(raw).buffer);
}

/** Bytes of float32 values, copied. */
export function toBytes(values: Float32Array): Uint8Array {
  return new Uint8Array(values.slice().buffer);
}

function checksumOf(body: Uint8Array): string {
  return createHash('sha256').update(body).digest('hex');
}
