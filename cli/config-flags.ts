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

/** Gives a command the flags that set the configuration: the file, `--set` for any key, and short forms of the common keys of its section. */
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
export function configFromFlags(flags: ConfigFlags, section: 'agent' | 'brain', env: Readonly<Record<string, string | undefined>> = process.env): Config {
  const short: [string, string | undefined][] = [
    ['logLevel', flags.logLevel],
    [`${section}.host`, flags.host],
    [`${section}.port`, flags.port],
    [`${section}.stateDir`, flags.stateDir],
    [`${section}.policy`, flags.policy],
    ['agent.id', flags.id],
    ['agent.brainUrl', flags.brainUrl],
  ];
  const sets = short.flatMap(([path, value]) => (value === undefined ? [] : [`${path}=${value}`]));
  return loadConfig({
    file: flags.config ?? env.LODESTAR_CONFIG,
    env,
    ...(flags.vllm ? { overrides: { agent: { instances: flags.vllm.map((url) => ({ url })) } } } : {}),
    sets: [...sets, ...flags.set],
  });
}

function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}
