import { writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import { evaluateLog, type FitReport } from '../brain/fit/evaluate.ts';
import { readRequestLog } from '../brain/fit/log-reader.ts';
import { reportText } from '../brain/fit/report-text.ts';
import { loadBackend } from '../brain/predictor/backend.ts';
import { errorMessage } from '../shared/errors.ts';

/** Flags of `lodestar fit`, parsed. */
export interface FitFlags {
  log: string;
  json?: string;
}

/** `lodestar fit`: how well the predictor would have done on a recorded history. */
export function addFit(program: Command): void {
  program
    .command('fit')
    .description(
      'learn from the first 70 % of a recorded request log and report how well TTFT in the rest is predicted',
    )
    .requiredOption(
      '--log <file>',
      'request log, CSV, plain or gzip: with times (start_us, …) or with counts for every instance (<instance>-inflight_requests, …)',
    )
    .option('--json <file>', 'write the figures there as JSON; - is standard output')
    .action(async (flags: FitFlags) => {
      process.exitCode = await fit(flags);
    });
}

/** Runs the command and returns its exit code: 1 if the log cannot be used. The same log gives the same figures. */
export async function fit(flags: FitFlags): Promise<number> {
  try {
    const log = readRequestLog(flags.log);
    const { tf } = await loadBackend({ backend: 'wasm', tfjsNodeGpuDir: '', gpuMemoryLimitMb: 0 });
    const report = evaluateLog(tf, log, flags.log);
    // With the figures on standard output, the table goes beside them.
    (flags.json === '-' ? process.stderr : process.stdout).write(`${reportText(report)}\n`);
    if (flags.json !== undefined) writeJson(flags.json, report);
    return 0;
  } catch (error) {
    process.stderr.write(`lodestar: ${errorMessage(error)}\n`);
    return 1;
  }
}

function writeJson(file: string, report: FitReport): void {
  const text = `${JSON.stringify(report, null, 2)}\n`;
  if (file === '-') process.stdout.write(text);
  else writeFileSync(file, text);
}
