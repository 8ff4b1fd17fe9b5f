import { Option, type Command } from 'commander';
import { OBJECTIVE_NAMES, type ObjectiveName } from '../shared/choice/objectives/index.ts';
import { POLICY_NAMES } from '../shared/choice/policies/index.ts';
import { packageVersion } from '../shared/package-root.ts';
import { summarizeCluster } from '../sim/fleet/cluster-summary.ts';
import { bundledMatrix, readMatrix } from '../sim/fleet/matrix.ts';
import type { SimPolicy } from '../sim/fleet/run.ts';
import { runMatrix } from '../sim/fleet/run-matrix.ts';
import { oneOfEach, whole, wholes } from './flag-values.ts';
import { cellText, summaryText } from './sim-matrix-report.ts';
import { sayErrors, showProgress, writeJson } from './sim-output.ts';

interface MatrixFlags {
  cells?: string;
  policies: SimPolicy[];
  seeds: number[];
  objective: ObjectiveName;
  requests?: number;
  json?: string;
  jobs: number;
  quiet?: boolean;
}

/** `lodestar sim matrix`: policies in every cell of the evaluation matrix, a table each and one summary. */
export function addSimMatrix(sim: Command, known: readonly SimPolicy[]): void {
  sim
    .command('matrix')
    .description('simulate policies in every cell of a matrix of clusters, traces, loads and entries')
    .argument('[file]', 'matrix, YAML', bundledMatrix)
    .option('--cells <cells>', 'only these: numbers, or names where * stands for anything, by commas')
    .option('--policies <names>', `by commas: ${known.join(', ')}`, oneOfEach(known), [...POLICY_NAMES])
    .option('--seeds <numbers>', 'by commas; each policy sees the same draws', wholes, [1])
    .addOption(
      new Option('--objective <name>', 'what the learned policy makes small').choices(OBJECTIVE_NAMES).default('ttft'),
    )
    .option('--requests <n>', 'so many requests in each cell at most (default: as the matrix says)', whole)
    .option('--json <file>', 'write everything there as JSON; - is standard output')
    .option('--jobs <n>', 'threads', whole, 1)
    .option('--quiet', 'no progress, and the summary alone')
    .action(async (file: string, flags: MatrixFlags) => {
      process.exitCode = await sayErrors(() => runFile(file, flags));
    });
}

async function runFile(file: string, flags: MatrixFlags): Promise<void> {
  const matrix = readMatrix(file, flags.requests);
  const { policies, seeds, objective, quiet, jobs: threads, json } = flags;
  const cells = matrix.select(flags.cells);
  const result = await runMatrix(matrix, {
    cells,
    policies,
    seeds,
    objective,
    threads,
    ...(quiet ? {} : { onDone: showProgress }),
  });
  if (!quiet && process.stderr.isTTY) process.stderr.write('\r\u001b[K');
  const out = json === '-' ? process.stderr : process.stdout;
  if (!quiet) for (const cell of result.cells) out.write(`${cellText(cell)}\n`);
  out.write(`${summaryText(result.summary)}\n`);
  if (json === undefined) return;
  const clusters = Object.fromEntries(
    [...new Set(cells.map((cell) => cell.cluster))].map((name) => [name, summarizeCluster(matrix.cluster(name, 1))]),
  );
  const { capacities, ...rest } = result;
  const options = {
    policies,
    seeds,
    objective,
    requests: flags.requests,
    cells: cells.map((cell) => cell.number),
    warmupS: matrix.warmupS,
  };
  writeJson(json, { meta: { version: packageVersion, options, clusters, traces: matrix.traces, capacities }, ...rest });
}
