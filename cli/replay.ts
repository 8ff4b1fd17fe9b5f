import { writeFileSync } from 'node:fs';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { request } from 'undici';
import { realClock } from '../shared/env.ts';
import { errorMessage, LodestarError } from '../shared/errors.ts';
import {
  bundledTrace,
  pace,
  planRequests,
  readMooncake,
  runLoad,
  type LoadProgress,
  type LoadResult,
} from '../sim/workloads/index.ts';
import { notNegative, positive, whole } from './flag-values.ts';
import { progressLine, resultText } from './replay-report.ts';

/** Flags of `lodestar replay`, parsed. */
export interface ReplayFlags {
  url: string[];
  trace: string;
  rate?: number;
  speed?: number;
  start: number;
  duration?: number;
  lengthScale: number;
  outputScale: number;
  maxPrompt?: number;
  maxRequests?: number;
  model?: string;
  api: 'chat' | 'completions';
  apiKey?: string;
  seed: number;
  json?: string;
  quiet?: boolean;
}

/** `lodestar replay`: sends a Mooncake trace to OpenAI-compatible servers and reports what their clients see. */
export function addReplay(program: Command): void {
  program
    .command('replay')
    .description('send the requests of a trace to a fleet, at their times, and report latencies and failures')
    .requiredOption('--url <url,…>', 'base URLs, served in turn', urls)
    .option('--trace <file>', 'Mooncake trace, JSON lines, plain or gzip', bundledTrace)
    .addOption(new Option('--rate <n>', 'mean requests a second').argParser(positive).conflicts('speed'))
    .addOption(new Option('--speed <n>', "multiple of the trace's own pace (default 1)").argParser(positive))
    .option('--start <seconds>', 'begin of the span of the trace', notNegative, 0)
    .option('--duration <seconds>', 'length of that span, before --rate or --speed', positive)
    .option('--length-scale <x>', 'prompt lengths relative to the trace', positive, 0.125)
    .option('--output-scale <x>', 'answer lengths relative to the trace', positive, 1)
    .option('--max-prompt <tokens>', 'leave out longer prompts (after scaling)', positive)
    .option('--max-requests <n>', 'stop after so many requests', whole)
    .option('--model <name>', 'model to ask for (default: the first that the first URL lists)')
    .addOption(new Option('--api <name>', 'which route to use').choices(['chat', 'completions']).default('completions'))
    .option('--api-key <key>', 'bearer token to send')
    .option('--seed <n>', "seed of the arrivals within the trace's grid", whole, 1)
    .option('--json <file>', 'write the figures there as JSON; - is standard output')
    .option('--quiet', 'no progress and no table')
    .action(async (flags: ReplayFlags) => {
      process.exitCode = await replay(flags);
    });
}

/**
 * Runs a replay and returns the exit code: 1 when nothing succeeded or the input is bad. Ctrl-C ends it early, with the
 * figures so far.
 */
export async function replay(flags: ReplayFlags): Promise<number> {
  const stop = new AbortController();
  const interrupt = (): void => stop.abort();
  // The clock's timers do not hold the process, and between two arrivals nothing else may.
  const hold = setInterval(() => {}, 60_000);
  process.once('SIGINT', interrupt);
  try {
    const result = await send(flags, stop.signal);
    return result.succeeded > 0 ? 0 : 1;
  } catch (error) {
    process.stderr.write(`lodestar: ${errorMessage(error)}\n`);
    return 1;
  } finally {
    process.off('SIGINT', interrupt);
    clearInterval(hold);
  }
}

async function send(flags: ReplayFlags, signal: AbortSignal): Promise<LoadResult> {
  const { lengthScale, outputScale, seed, quiet, json } = flags;
  const trace = readMooncake(flags.trace, {
    seed,
    lengthScale,
    outputScale,
    startMs: flags.start * 1000,
    durationMs: flags.duration === undefined ? undefined : flags.duration * 1000,
    maxPromptTokens: flags.maxPrompt,
    maxRequests: flags.maxRequests,
  });
  if (trace.requests.length === 0)
    throw new LodestarError(
      'TRACE_INVALID',
      `${flags.trace}: no request is left; widen --start, --duration or --max-prompt`,
    );
  const requests = pace(trace.requests, flags.rate === undefined ? { speed: flags.speed ?? 1 } : { rate: flags.rate });
  const model = flags.model ?? (await firstModel(flags.url[0] ?? '', flags.apiKey));
  const result = await runLoad(
    {
      urls: flags.url,
      requests: planRequests(requests, lengthScale),
      api: flags.api,
      model,
      apiKey: flags.apiKey,
      clock: realClock,
      signal,
    },
    quiet ? undefined : showProgress,
  );
  if (!quiet) {
    if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
    const dropped = trace.droppedTooLong === 0 ? '' : `; ${trace.droppedTooLong} longer prompts left out`;
    // With the figures on standard output, the table goes beside them.
    (json === '-' ? process.stderr : process.stdout).write(
      `prompts × ${lengthScale}, answers × ${outputScale}${dropped}\n${resultText(result)}\n`,
    );
  }
  if (json !== undefined)
    writeJson(json, { flags: { ...flags, apiKey: undefined, model }, droppedTooLong: trace.droppedTooLong, ...result });
  return result;
}

async function firstModel(url: string, apiKey: string | undefined): Promise<string> {
  const headers = apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` };
  const list = `${url}/v1/models`;
  try {
    const { statusCode, body } = await request(list, { headers });
    const answer = (await body.json()) as { data?: { id?: unknown }[] };
    const id = answer.data?.[0]?.id;
    if (statusCode === 200 && typeof id === 'string') return id;
    throw new LodestarError('UPSTREAM_FAILED', `answered ${statusCode} and no model`);
  } catch (error) {
    throw new LodestarError(
      'UPSTREAM_FAILED',
      `${list}: ${errorMessage(error)}; is the server up? --model names a model without asking`,
      { cause: error },
    );
  }
}

function showProgress(progress: LoadProgress): void {
  if (process.stderr.isTTY) process.stderr.write(`\r${progressLine(progress)}\u001b[K`);
}

function writeJson(file: string, value: object): void {
  const text = `${JSON.stringify(value, null, 2)}\n`;
  if (file === '-') process.stdout.write(text);
  else writeFileSync(file, text);
}

function urls(text: string): string[] {
  return text.split(',').map((part) => {
    const url = part.trim().replace(/\/+$/, '');
    if (!/^https?:\/\//.test(url) || !URL.canParse(url))
      throw new InvalidArgumentError(`${JSON.stringify(part)} is not an http:// or https:// URL.`);
    return url;
  });
}
