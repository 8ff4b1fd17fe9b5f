import { z } from 'zod';
import { originProblem } from './door-url.ts';
import { CACHE_SOURCES, type InstanceReport } from './instance.ts';
import { GENERIC_LAW, isPossibleLaw, type LawState } from './predictor/step-law.ts';

/** How much of an instance's list of models travels. */
export interface NameBounds {
  /** longest name, in UTF-16 units */
  nameChars: number;
  names: number;
  /** units of all names together */
  chars: number;
}

export const NAME_BOUNDS: NameBounds = { nameChars: 512, names: 4096, chars: 524_288 };
/** What agents and brains up to protocol 2 take, and what a routing table carries. */
export const NARROW_NAME_BOUNDS: NameBounds = { nameChars: 256, names: 1024, chars: 262_144 };
/** Largest number of a report: sums and products of a few stay finite. */
export const MAX_FIGURE = 1e15;
/** Entries that a report remembers at most. */
export const MAX_SEEN = 256;
/** Faults of one report that are told. */
const MAX_FAULTS = 4;
const MAX_PROBLEM_CHARS = 200;

const id = z.string().min(1).max(256);
const count = z.number().int().nonnegative();
const ratio = z.number().min(0).max(16);
const finite = z.number().min(0).max(MAX_FIGURE);
const seenSchema = z.object({ entry: id, epoch: count, upTo: z.number().int().min(-1), later: count });

/** Shape of InstanceReport (shared/instance.ts). */
export const reportSchema = z.object({
  instance: id,
  agent: id,
  doorUrl: z
    .string()
    .refine((url) => originProblem(url) === undefined, { error: 'is not the http:// or https:// URL of a host' }),
  incarnation: count,
  seq: count,
  ageMs: finite,
  health: z.enum(['up', 'starting', 'down']),
  draining: z.boolean(),
  models: z
    .array(z.string().max(NAME_BOUNDS.nameChars))
    .max(NAME_BOUNDS.names)
    .refine((names) => charsOf(names) <= NAME_BOUNDS.chars, {
      error: `holds more than ${NAME_BOUNDS.chars} characters`,
    }),
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
  seen: z.array(seenSchema).max(MAX_SEEN),
});

/**
 * A report between agents: without its list of models where there is no room for it. Then the list that is known stays
 * in force.
 */
export const reportUpdateSchema = reportSchema.extend({ models: reportSchema.shape.models.nullable() });

/** A report whose list of models may be left out. */
export type ReportUpdate = Omit<InstanceReport, 'models'> & { models: string[] | null };

/** What does not fit in something that a peer sent. */
export interface Fault {
  /** whose report it is; undefined: none's, or it cannot be read */
  instance: string | undefined;
  /** the field and what is wrong with it */
  problem: string;
}

export type NoteFault = (fault: Fault) => void;

const nothing = (): null => null;
/** What takes the place of a field that does not fit, where a report is worth something without it. */
const SUBSTITUTES: Readonly<Record<string, (value: unknown) => unknown>> = {
  models: (value) =>
    boundNames(
      Array.isArray(value) ? (value as unknown[]).filter((name) => typeof name === 'string') : [],
      NAME_BOUNDS,
    ),
  kind: () => '?',
  law: () => GENERIC_LAW,
  cache: nothing,
  engine: nothing,
  gpu: nothing,
  host: nothing,
  seen: (value) =>
    Array.isArray(value)
      ? (value as unknown[]).filter((one) => seenSchema.safeParse(one).success).slice(0, MAX_SEEN)
      : [],
};

/**
 * Reads reports one by one. A field that does not fit costs that field where a report can do without it, else the
 * report, never the others; `note` is told of each.
 */
export function readReports(list: readonly unknown[], note: NoteFault): InstanceReport[] {
  return list.flatMap((raw) => readOne(reportSchema, raw, note) ?? []);
}

/** The same of reports that may come without their models. */
export function readReportUpdates(list: readonly unknown[], note: NoteFault): ReportUpdate[] {
  return list.flatMap((raw) => readOne(reportUpdateSchema, raw, note) ?? []);
}

function readOne<T>(schema: z.ZodType<T>, raw: unknown, note: NoteFault): T | undefined {
  const whole = schema.safeParse(raw);
  if (whole.success) return whole.data;
  const { issues } = whole.error;
  for (const { path, message } of issues.slice(0, MAX_FAULTS)) {
    note({
      instance: instanceOf(raw),
      problem: `${path.join('.') || 'the report'}: ${message}`.slice(0, MAX_PROBLEM_CHARS),
    });
  }
  const mended: Record<string, unknown> = { ...(raw as Record<string, unknown> | null) };
  for (const { path } of issues) {
    const substitute = SUBSTITUTES[String(path[0])];
    if (!substitute) return undefined;
    mended[String(path[0])] = substitute(mended[String(path[0])]);
  }
  const rest = schema.safeParse(mended);
  return rest.success ? rest.data : undefined;
}

/** Groups of figures that are all from 0 to MAX_FIGURE but for those of OTHER_RANGES. */
const GROUPS = ['limits', 'ledger', 'cache', 'engine', 'gpu', 'host'] as const;
const RATIO_RANGE = [0, 16] as const;
const OTHER_RANGES: Readonly<Record<string, readonly [number, number]>> = {
  stepAgeMs: [-1, MAX_FIGURE],
  temperatureC: [-1000, MAX_FIGURE],
  hitRatio: RATIO_RANGE,
  accuracyRatio: RATIO_RANGE,
  kvUsageRatio: RATIO_RANGE,
  utilRatio: RATIO_RANGE,
  memUsedRatio: RATIO_RANGE,
  smClockRatio: RATIO_RANGE,
  powerRatio: RATIO_RANGE,
  cpuRatio: RATIO_RANGE,
};

/**
 * Brings the figures of a door's own report into the ranges of the schema, in place; `note` is told of each that is
 * not. NaN becomes the least there is.
 */
export function mendFigures(report: InstanceReport, note: NoteFault): InstanceReport {
  for (const group of GROUPS) {
    const figures = report[group] as Record<string, unknown> | null;
    for (const name in figures) {
      const value = figures[name];
      if (typeof value !== 'number') continue;
      const [least, most] = OTHER_RANGES[name] ?? [0, MAX_FIGURE];
      if (value >= least && value <= most) continue;
      note({ instance: report.instance, problem: `${group}.${name}: ${value} cannot be` });
      figures[name] = value > most ? most : least;
    }
  }
  for (const name in report.law) {
    const value = report.law[name as keyof LawState];
    if (value >= 0 && value <= MAX_FIGURE) continue;
    note({ instance: report.instance, problem: `law.${name}: ${value} cannot be` });
    report.law = GENERIC_LAW;
  }
  return report;
}

/** The names that travel, in their order: those that are not too long, as many as fit. The same array where all do. */
export function boundNames(names: string[], bounds: NameBounds): string[] {
  let chars = 0;
  const kept: string[] = [];
  for (const name of names) {
    if (name.length > bounds.nameChars) continue;
    chars += name.length;
    if (kept.length >= bounds.names || chars > bounds.chars) break;
    kept.push(name);
  }
  return kept.length === names.length ? names : kept;
}

/** The report with no more names than the bounds allow. */
export function narrowReport(report: InstanceReport, bounds: NameBounds): InstanceReport {
  const models = boundNames(report.models, bounds);
  return models === report.models ? report : { ...report, models };
}

/** At least as many bytes as the report takes in a frame. */
export function reportBytes({ instance, agent, doorUrl, models, kind, cache, seen }: InstanceReport): number {
  let bytes =
    FIXED_BYTES +
    textBytes(instance) +
    textBytes(agent) +
    textBytes(doorUrl) +
    textBytes(kind) +
    textBytes(cache?.problem ?? '');
  for (const model of models) bytes += textBytes(model);
  for (const { entry } of seen) bytes += SEEN_BYTES + textBytes(entry);
  return bytes;
}

/** Field names and numbers of a report, and of one element of `seen`. */
const FIXED_BYTES = 1536;
const SEEN_BYTES = 64;

function textBytes(text: string): number {
  return 5 + 3 * text.length;
}

function charsOf(names: readonly string[]): number {
  let chars = 0;
  for (const name of names) chars += name.length;
  return chars;
}

function instanceOf(raw: unknown): string | undefined {
  const instance = (raw as { instance?: unknown } | null | undefined)?.instance;
  return typeof instance === 'string' ? instance.slice(0, 256) : undefined;
}
