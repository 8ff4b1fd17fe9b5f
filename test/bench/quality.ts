import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { summaryText } from '../../cli/sim-matrix-report.ts';
import { showProgress } from '../../cli/sim-output.ts';
import { POLICY_NAMES } from '../../shared/choice/policies/index.ts';
import { bundledMatrix, readMatrix } from '../../sim/fleet/matrix.ts';
import { runMatrix } from '../../sim/fleet/run-matrix.ts';

/**
 * `npm run bench:quality [-- --cells … --jobs N]`: cells of the published matrix with every cluster, trace, load and
 * number of entries, in at most ten minutes on two cores.
 */
const CELLS = '1,2,3,4,7,8,10,11,12,13,14,15,17,18,20,25,27,28,33,36,38';

/** What `learned` is measured against, and those that are the best of a cell now and then. */
const POLICIES = new Set<string>([
  'learned',
  'prefix-load',
  'lmetric',
  'llm-d',
  'mooncake',
  'least-load',
  'dynamo',
  'smetric',
  'lodestar-paper',
]);

const { values } = parseArgs({
  options: {
    cells: { type: 'string', default: CELLS },
    jobs: { type: 'string', default: String(Math.min(4, availableParallelism())) },
  },
});
const matrix = readMatrix(bundledMatrix);
const result = await runMatrix(matrix, {
  cells: matrix.select(values.cells),
  policies: POLICY_NAMES.filter((name) => POLICIES.has(name)),
  seeds: [1],
  objective: 'ttft',
  threads: Math.max(1, Math.floor(Number(values.jobs)) || 1),
  onDone: showProgress,
});
if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
console.log(summaryText(result.summary));
