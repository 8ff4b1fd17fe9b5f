import type { Command } from 'commander';
import { loadConfig, type Config } from '../shared/config/index.ts';

/** What the flags of `addConfigFlags` hold after parsing. */
export interface ConfigFlags {
  config?: string;
  set: string[];
  logLevel?: string;
  host?: string;
  port?: string;
  stateDir?: string;
  id?: string;
  brainUrl?: string;
  vllm?: string[];
  policy?: string;
}

/**
 * Gives a command the flags that set the configuration: the file, `--set` for any key, and short forms of the common
 * keys of its section.
 */
export function addConfigFlags(command: Command, section: 'agent' | 'brain'): Command {
  command
    .option('-c, --config <file>', 'configuration file (YAML)')
    .option('--set <key=value>', 'set any key, for example agent.retries=1; repeatable', collect, [])
    .option('--log-level <level>', 'logLevel')
    .option('--host <address>', `${section}.host`)
    .option('--port <port>', `${section}.port`)
    .option('--state-dir <folder>', `${section}.stateDir`)
    .option('--policy <name>', `${section}.policy`);
  if (section === 'brain') return command;
  return command
    .option('--id <id>', 'agent.id')
    .option('--brain-url <url>', 'agent.brainUrl')
    .option('--vllm <url>', 'a local vLLM, in place of agent.instances; repeatable', collect);
}

/** The configuration in force for those flags and the environment; LODESTAR_CONFIG names the file when no flag does. */
export function configFromFlags(
  flags: ConfigFlags,
  section: 'agent' | 'brain',
  env: Readonly<Record<string, string | undefined>> = process.env,
): Config {
  const short: [flag: string, path: string, value: unknown][] = [
    ['--log-level', 'logLevel', flags.logLevel],
    ['--host', `${section}.host`, flags.host],
    ['--port', `${section}.port`, flags.port],
    ['--state-dir', `${section}.stateDir`, flags.stateDir],
    ['--policy', `${section}.policy`, flags.policy],
    ['--id', 'agent.id', flags.id],
    ['--brain-url', 'agent.brainUrl', flags.brainUrl],
    ['--vllm', 'agent.instances', flags.vllm?.map((url) => ({ url }))],
  ];
  return loadConfig({
    file: flags.config ?? env.LODESTAR_CONFIG,
    env,
    flags: short.flatMap(([flag, path, value]) => (value === undefined ? [] : [{ flag, path, value }])),
    sets: flags.set,
  });
}

function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}
