import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Command } from 'commander';
import { docsTable, loadConfig, printConfig, retiredKeys, updateDocs } from '../shared/config/index.ts';
import { errorMessage, LodestarError } from '../shared/errors.ts';

/** `lodestar config …`: check, print and make configuration files. */
export function addConfig(program: Command): void {
  const config = program.command('config').description('check, print and make configuration files');
  config
    .command('check')
    .description('say whether agent and brain would accept a file, with the environment as it is')
    .argument('<file>')
    .action((file: string) => orExit(() => checkFile(file)));
  config
    .command('print')
    .description('print every key with its default as commented YAML')
    .action(() => {
      process.stdout.write(printConfig());
    });
  config
    .command('init')
    .description('write a configuration file with a fresh fleet token, readable by its owner only')
    .argument('[path]', 'file to make', 'lodestar.yaml')
    .action((path: string) => orExit(() => initFile(path)));
  config
    .command('docs')
    .description('print the reference table, or bring it up to date in a page')
    .argument('[page]')
    .action((page?: string) => orExit(() => writeDocs(page)));
}

/** Makes a configuration file with a random 256-bit token, mode 0600. Refuses to overwrite. */
export function initFile(path: string): string {
  mkdirSync(dirname(path), { recursive: true });
  const text = `# Lodestar configuration. Every agent and the brain of a fleet need the same token.
# Every key with its meaning and default: lodestar config print
token: ${randomBytes(32).toString('base64url')}

agent:
  # Where the brain listens; empty: no brain.
  brainUrl: ws://127.0.0.1:7400
  # The vLLM servers beside this agent, for example [{url: "http://127.0.0.1:8000"}]. None: a pure entry point.
  instances: []
`;
  try {
    writeFileSync(path, text, { mode: 0o600, flag: 'wx' });
  } catch (error) {
    const exists = (error as NodeJS.ErrnoException).code === 'EEXIST';
    throw new LodestarError(
      'CONFIG_INVALID',
      exists ? `${path} exists and stays as it is; name another path` : `cannot write ${path}: ${errorMessage(error)}`,
      { cause: error },
    );
  }
  return `${path} is written, with a fresh token. Copy the token to every agent and the brain of the fleet.`;
}

function checkFile(file: string): string {
  const config = loadConfig({ file, env: process.env });
  const { agent, brain } = config;
  for (const warning of retiredKeys(config)) process.stderr.write(`lodestar: warning: ${warning}\n`);
  return `${file} is valid: agent ${agent.id} on port ${agent.port} with ${agent.instances.length} instance(s), brain on port ${brain.port} with policy ${brain.policy}`;
}

function writeDocs(page: string | undefined): string {
  if (page === undefined) return docsTable();
  const updated = updateDocs(readFileSync(page, 'utf8'));
  if (updated === undefined)
    throw new LodestarError(
      'CONFIG_INVALID',
      `${page} has no markers of the generated table; add the lines that \`lodestar config docs\` prints`,
    );
  writeFileSync(page, updated);
  return `${page} is up to date`;
}

function orExit(act: () => string): void {
  try {
    process.stdout.write(`${act()}\n`);
  } catch (error) {
    process.stderr.write(`lodestar: ${errorMessage(error)}\n`);
    process.exitCode = 1;
  }
}
