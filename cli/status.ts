import type { Command } from 'commander';
import { request } from 'undici';
import { errorMessage, LodestarError } from '../shared/errors.ts';
import { firstIssue } from '../shared/table.ts';
import { agentStatus } from './status-page.ts';
import { cacheText, statusText } from './status-text.ts';

const TIMEOUT_MS = 5000;
const STATUS_PATH = '/lodestar/status';

export interface StatusFlags {
  url: string;
  cache?: boolean;
  json?: boolean;
}

/** `lodestar status`: the fleet as one agent sees it. */
export function addStatus(program: Command): void {
  program
    .command('status')
    .description(
      'show the fleet as an agent sees it: instances, load, policy in force; with --cache, what is known of every KV cache',
    )
    .option('--url <url>', 'base URL of the agent', 'http://127.0.0.1:8080')
    .option('--cache', 'what is known of the prefix caches')
    .option('--json', "the agent's status page as JSON")
    .action(async (flags: StatusFlags) => {
      try {
        process.stdout.write(`${await status(flags)}\n`);
      } catch (error) {
        process.stderr.write(`lodestar: ${errorMessage(error)}\n`);
        process.exitCode = 1;
      }
    });
}

/** What the command prints. Error: UPSTREAM_FAILED when no agent answers at the URL, with what to start or correct. */
export async function status({ url, cache = false, json = false }: StatusFlags): Promise<string> {
  const page = await read(url);
  if (json) return JSON.stringify(page, null, 2);
  const parsed = agentStatus.safeParse(page);
  if (!parsed.success) {
    throw new LodestarError(
      'UPSTREAM_FAILED',
      `what ${url} answers is not the status page of an agent of this version (${firstIssue(parsed.error)}); --json prints it as it is`,
      { cause: parsed.error },
    );
  }
  return cache ? cacheText(parsed.data) : statusText(parsed.data);
}

async function read(url: string): Promise<unknown> {
  const remedy = 'name the address of an agent with --url, or start one with `lodestar agent`';
  const answer = await ask(url).catch((error: Error & { code?: string }) => {
    // A name with several addresses fails with an AggregateError, whose message is empty.
    const why = error.code === 'ECONNREFUSED' ? 'connection refused' : errorMessage(error) || error.code;
    throw new LodestarError('UPSTREAM_FAILED', `no agent answers at ${url} (${why}): ${remedy}`, { cause: error });
  });
  if (answer.code !== 200) {
    const hint = answer.code === 401 ? '; a brain asks for the token there' : '';
    throw new LodestarError(
      'UPSTREAM_FAILED',
      `${url} is no agent (HTTP ${answer.code} for ${STATUS_PATH}${hint}): ${remedy}`,
    );
  }
  try {
    return JSON.parse(answer.text) as unknown;
  } catch (error) {
    throw new LodestarError('UPSTREAM_FAILED', `${url} is no agent (its answer is not JSON): ${remedy}`, {
      cause: error,
    });
  }
}

async function ask(url: string): Promise<{ code: number; text: string }> {
  const answer = await request(new URL(STATUS_PATH, url), { headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS });
  return { code: answer.statusCode, text: await answer.body.text() };
}
