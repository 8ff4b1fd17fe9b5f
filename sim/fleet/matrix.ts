import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { parse as parseYaml, YAMLParseError } from 'yaml';
import { z } from 'zod';
import type { ObjectiveName } from '../../shared/choice/objectives/index.ts';
import { errorMessage, LodestarError } from '../../shared/errors.ts';
import { packageRoot } from '../../shared/package-root.ts';
import { SYNTHETIC_PREFIX } from '../workloads/synthetic.ts';
import { TRACE_FORMATS } from '../workloads/trace.ts';
import { type Cluster, parseCluster } from './cluster.ts';
import { DEFAULT_SLO } from './result.ts';
import type { CapacityJob, RunJob } from './job.ts';
import type { SimPolicy } from './run.ts';
import type { TraceSpec } from './scenario.ts';

/** The published sample of the evaluation matrix. */
export const bundledMatrix: string = join(packageRoot, 'sim/data/matrix.yaml');

const positive = z.number().positive();

/** An event of a cluster file, but its time is a share of the run's: runs last as long as the load makes them. */
const eventSchema = z.looseObject({ at: z.number().min(0).max(1) });
const clusterSchema = z.looseObject({
  requests: z.number().int().min(2).optional(),
  events: z.array(eventSchema).default([]),
});
const traceSchema = z.strictObject({
  file: z.string(),
  format: z.enum(TRACE_FORMATS).optional(),
  lengthScale: positive.default(1),
  outputScale: positive.default(1),
  maxPrompt: positive.optional(),
});
const cellSchema = z.strictObject({
  cluster: z.string(),
  trace: z.string(),
  load: positive,
  entries: z.number().int().min(1).max(256),
});
const matrixSchema = z.strictObject({
  requests: z.number().int().min(2),
  warmupS: z.number().min(0).default(30),
  gpus: z.record(z.string(), z.unknown()).default({}),
  stepLaw: z.string().default('rough'),
  clusters: z.record(z.string(), clusterSchema),
  traces: z.record(z.string(), traceSchema),
  cells: z.array(cellSchema).min(1),
});

type MatrixFile = z.infer<typeof matrixSchema>;

/** One combination of the axes. */
export interface Cell {
  /** from 1, in the order of the file */
  number: number;
  /** `cluster/trace/load/entries` */
  name: string;
  cluster: string;
  trace: string;
  /** of the measured capacity of cluster and trace */
  load: number;
  entries: number;
}

/** Capacity of a cluster for a trace, and how many of its requests a cell has. */
export interface Capacity {
  capacityRps: number;
  requests: number;
}

/** The evaluation matrix: what its cells are made of. */
export class Matrix {
  readonly cells: readonly Cell[];
  readonly warmupS: number;
  private readonly file: MatrixFile;
  private readonly path: string;
  private readonly requests: number | undefined;

  /** `requests` overrides how many a cell has at most. Throws CONFIG_INVALID naming the file and field. */
  constructor(text: string, path: string, requests?: number) {
    this.path = path;
    this.file = parseMatrix(text, path);
    this.warmupS = this.file.warmupS;
    this.requests = requests;
    this.cells = this.file.cells.map((cell, index) => ({
      ...cell,
      number: index + 1,
      name: `${cell.cluster}/${cell.trace}/${cell.load}/${cell.entries}`,
    }));
    for (const [index, { cluster, trace }] of this.cells.entries()) {
      if (!this.file.clusters[cluster])
        throw this.invalid(
          `cells[${index}].cluster: there is no ${cluster}; clusters are ${Object.keys(this.file.clusters).join(', ')}`,
        );
      if (!this.file.traces[trace])
        throw this.invalid(
          `cells[${index}].trace: there is no ${trace}; traces are ${Object.keys(this.file.traces).join(', ')}`,
        );
    }
    for (const name of Object.keys(this.file.clusters)) this.cluster(name, 1);
  }

  /** Cells by number or by a pattern of their name (`*` stands for anything), by commas; all without one. */
  select(filter: string | undefined): Cell[] {
    if (filter === undefined) return [...this.cells];
    const wanted = new Set<Cell>();
    for (const part of filter.split(',').map((one) => one.trim())) {
      const pattern = new RegExp(
        `^${part
          .split('*')
          .map((piece) => piece.replaceAll(/[.+?^${}()|[\]\\]/g, '\\$&'))
          .join('.*')}$`,
      );
      const found = this.cells.filter((cell) => String(cell.number) === part || pattern.test(cell.name));
      if (found.length === 0)
        throw new LodestarError(
          'CONFIG_INVALID',
          `no cell is ${part}: cells are 1 to ${this.cells.length}, or names such as ${this.cells[0]?.name}, where * stands for anything`,
        );
      for (const cell of found) wanted.add(cell);
    }
    return this.cells.filter((cell) => wanted.has(cell));
  }

  /** The measurement that the load of a cell refers to; the same for all cells of a cluster and a trace. */
  capacityJob(cell: Cell): CapacityJob {
    return { kind: 'capacity', cluster: this.cluster(cell.cluster, 1), trace: this.trace(cell, { speed: 1 }), seed: 1 };
  }

  /** A run of a cell; its events happen at their shares of the time in which the requests arrive. */
  runJob(cell: Cell, capacity: Capacity, run: { policy: SimPolicy; seed: number; objective: ObjectiveName }): RunJob {
    const rate = cell.load * capacity.capacityRps;
    const slo = { sloTtftMs: DEFAULT_SLO.ttftMs, sloTpotMs: DEFAULT_SLO.tpotMs, sendSlo: run.objective === 'goodput' };
    return {
      kind: 'run',
      cluster: this.cluster(cell.cluster, capacity.requests / rate),
      trace: this.trace(cell, { rate }),
      entries: cell.entries,
      warmupS: this.warmupS,
      plots: false,
      ...slo,
      ...run,
    };
  }

  /** The traces by their names, as the file has them. */
  get traces(): MatrixFile['traces'] {
    return this.file.traces;
  }

  /** A cluster by its name, for a run that lasts so long. */
  cluster(name: string, durationS: number): Cluster {
    const { gpus, stepLaw } = this.file;
    const { requests: _, events, ...own } = this.file.clusters[name] as MatrixFile['clusters'][string];
    const timed = events.map(({ at, ...event }) => ({ ...event, atS: at * durationS }));
    return parseCluster(JSON.stringify({ gpus, stepLaw, ...own, events: timed }), `${this.path} clusters.${name}`);
  }

  private trace(cell: Cell, pace: TraceSpec['pace']): TraceSpec {
    const { file, format, lengthScale, outputScale, maxPrompt } = this.file.traces[
      cell.trace
    ] as MatrixFile['traces'][string];
    const path = file.startsWith(SYNTHETIC_PREFIX) ? file : resolve(dirname(this.path), file);
    const maxRequests = this.requests ?? this.file.clusters[cell.cluster]?.requests ?? this.file.requests;
    return {
      file: path,
      format,
      lengthScale,
      outputScale,
      startS: 0,
      durationS: undefined,
      maxPromptTokens: maxPrompt,
      maxRequests,
      pace,
    };
  }

  private invalid(problem: string): LodestarError {
    return new LodestarError('CONFIG_INVALID', `matrix ${this.path}: ${problem}`);
  }
}

/** Reads a matrix file; see `Matrix`. */
export function readMatrix(path: string, requests?: number): Matrix {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new LodestarError('CONFIG_INVALID', `cannot read the matrix ${path}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
  return new Matrix(text, path, requests);
}

function parseMatrix(text: string, path: string): MatrixFile {
  let tree: unknown;
  try {
    tree = parseYaml(text) ?? {};
  } catch (error) {
    const line = error instanceof YAMLParseError && error.linePos ? ` line ${error.linePos[0].line}` : '';
    throw new LodestarError('CONFIG_INVALID', `matrix ${path}${line}: is not YAML: ${errorMessage(error)}`, {
      cause: error,
    });
  }
  const parsed = matrixSchema.safeParse(tree);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw new LodestarError('CONFIG_INVALID', `matrix ${path}: ${issue.path.map(String).join('.')}: ${issue.message}`);
}
