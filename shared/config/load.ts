import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, resolve } from 'node:path';
import { parse as parseYaml, YAMLParseError } from 'yaml';
import { errorMessage, LodestarError } from '../errors.ts';
import { configKeys, keyAt, namesUnder } from './keys.ts';
import { explainIssues, nearest, unknownKey } from './problems.ts';
import { configSchema, type AgentConfig, type Config, type InstanceConfig } from './schema.ts';

/** Values set from code, in the shape of the file; keys left out keep what the layers below say. */
export type ConfigOverrides = { readonly [key: string]: unknown };

/** What a flag such as `--port` says: a text is read as its key asks, anything else is taken as it stands. */
export interface FlagValue {
  flag: string;
  path: string;
  value: unknown;
}

export interface LoadOptions {
  /** YAML file; absent: defaults, environment and overrides only. */
  file?: string | undefined;
  env: Readonly<Record<string, string | undefined>>;
  /** Values from code as a tree, over the environment. */
  overrides?: ConfigOverrides | undefined;
  /** Flags that stand for one key each, over those. */
  flags?: readonly FlagValue[] | undefined;
  /** Flags of the form `agent.port=8080`, over everything else. */
  sets?: readonly string[] | undefined;
}

type Tree = Record<string, unknown>;

/**
 * The configuration in force: defaults, under the file, under the environment, under overrides, flags and `--set`.
 * Throws CONFIG_INVALID with one line for each problem.
 */
export function loadConfig(options: LoadOptions): Config {
  const tree: Tree = {};
  const sources = new Map<string, string>();
  if (options.file !== undefined) merge(tree, readConfigFile(options.file), options.file, sources);
  merge(tree, treeFromEnv(options.env, sources), undefined, sources);
  if (options.overrides) merge(tree, { ...options.overrides }, 'the overrides', sources);
  for (const { flag, path, value } of options.flags ?? []) merge(tree, treeFromFlag(path, value, flag), flag, sources);
  for (const text of options.sets ?? []) merge(tree, treeFromSet(text), `--set ${text.split('=')[0]}`, sources);
  const parsed = configSchema.safeParse(tree);
  if (!parsed.success) throw invalid(explainIssues(parsed.error.issues, tree, sources));
  const { agent, brain, logLevel, token, tokenFile } = parsed.data;
  return { logLevel, brain, agent: completeAgent(agent), token: token ?? tokenFromFile(tokenFile, options.file) };
}

/** All defaults with the given token, for tests and in-process fleets. */
export function defaultConfig(token: string): Config {
  return loadConfig({ env: {}, overrides: { token } });
}

function readConfigFile(file: string): Tree {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new LodestarError(
      'CONFIG_INVALID',
      `cannot read the configuration file ${file}: ${errorMessage(error)}; make one with \`lodestar config init\``,
      { cause: error },
    );
  }
  let value: unknown;
  try {
    value = parseYaml(text);
  } catch (error) {
    const at = error instanceof YAMLParseError && error.linePos ? ` line ${error.linePos[0].line}` : '';
    throw new LodestarError('CONFIG_INVALID', `${file}${at}: not YAML: ${errorMessage(error)}`, { cause: error });
  }
  if (value === null || value === undefined) return {};
  if (!isTree(value))
    throw invalid([`${file}: holds no keys; write \`agent:\` and \`brain:\` groups, see \`lodestar config print\``]);
  return value;
}

function treeFromEnv(env: LoadOptions['env'], sources: Map<string, string>): Tree {
  const tree: Tree = {};
  const byName = new Map(configKeys.flatMap((key) => (key.env === undefined ? [] : [[key.env, key] as const])));
  for (const [name, text] of Object.entries(env)) {
    if (text === undefined) continue;
    const key = byName.get(name);
    if (key) {
      setPath(tree, key.path, key.isText ? text : readValue(text, name));
      sources.set(key.path, name);
    } else if (/^LODESTAR_(AGENT|BRAIN)_/.test(name)) {
      const near = nearest(name, [...byName.keys()]);
      throw invalid([
        `${name}: unknown variable; ${near === undefined ? 'see docs/configuration.md' : `did you mean \`${near}\`?`}`,
      ]);
    }
  }
  return tree;
}

function treeFromSet(text: string): Tree {
  const at = text.indexOf('=');
  const path = text.slice(0, at).trim();
  if (at < 1) throw invalid([`--set ${text}: has no value; write --set agent.port=8080`]);
  const key = configKeys.find((candidate) => candidate.path === path && candidate.env !== undefined);
  if (!key) {
    const near = nearest(
      path,
      configKeys.map((candidate) => candidate.path),
    );
    if (near !== undefined) throw invalid([`--set ${path}: unknown key; did you mean \`${near}\`?`]);
    const group = path.split('.').slice(0, -1).join('.');
    throw invalid([
      unknownKey(namesUnder(group).length > 0 ? group : '', path.split('.').at(-1) ?? path, new Map([[path, '--set']])),
    ]);
  }
  return treeFromFlag(path, text.slice(at + 1), `--set ${path}`);
}

function treeFromFlag(path: string, value: unknown, source: string): Tree {
  const tree: Tree = {};
  const isRead = typeof value === 'string' && keyAt(path)?.isText === false;
  setPath(tree, path, isRead ? readValue(value, source) : value);
  return tree;
}

function readValue(text: string, source: string): unknown {
  try {
    return parseYaml(text);
  } catch (error) {
    throw new LodestarError(
      'CONFIG_INVALID',
      `${source}: ${JSON.stringify(text)} is not a YAML value: ${errorMessage(error)}`,
      { cause: error },
    );
  }
}

function setPath(tree: Tree, path: string, value: unknown): void {
  const parts = path.split('.');
  let at = tree;
  for (const part of parts.slice(0, -1)) {
    const next = at[part];
    at = isTree(next) ? next : ((at[part] = {}) as Tree);
  }
  at[parts.at(-1) ?? path] = value;
}

/**
 * Lays `upper` over `lower`: groups merge, everything else (lists too) replaces. A token replaces a token file and the
 * reverse.
 */
function merge(lower: Tree, upper: Tree, source: string | undefined, sources: Map<string, string>, prefix = ''): void {
  if (prefix === '') checkTokenLayer(lower, upper, source);
  for (const [name, value] of Object.entries(upper)) {
    const path = prefix + name;
    const below = lower[name];
    if (value === undefined) continue;
    if (isTree(value)) {
      const group = isTree(below) ? below : ((lower[name] = {}) as Tree);
      if (source !== undefined) sources.set(path, source);
      merge(group, value, source, sources, `${path}.`);
    } else {
      lower[name] = value;
      if (source !== undefined) sources.set(path, source);
    }
  }
}

function checkTokenLayer(lower: Tree, upper: Tree, source: string | undefined): void {
  if (upper.token !== undefined && upper.tokenFile !== undefined) {
    throw invalid([`token: set together with tokenFile in ${source ?? 'the environment'}; keep one of them`]);
  }
  if (upper.token !== undefined) delete lower.tokenFile;
  if (upper.tokenFile !== undefined) delete lower.token;
}

function tokenFromFile(tokenFile: string | undefined, configFile: string | undefined): string {
  if (tokenFile === undefined) {
    throw invalid([
      'token: is missing; every agent and brain needs the token of its fleet: run `lodestar config init` to make a file with one, or set LODESTAR_TOKEN',
    ]);
  }
  const path = configFile === undefined ? resolve(tokenFile) : resolve(dirname(configFile), tokenFile);
  let token: string;
  try {
    token = readFileSync(path, 'utf8').trim();
  } catch (error) {
    throw new LodestarError('CONFIG_INVALID', `tokenFile: cannot read ${path}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
  const checked = configSchema.shape.token.safeParse(token);
  if (!checked.success)
    throw invalid([
      `tokenFile: ${path} holds ${token.length} characters that are no token; at least 16 of ASCII are needed: run \`lodestar config init\` to make one`,
    ]);
  return token;
}

function completeAgent(agent: AgentConfig): AgentConfig {
  const agentId = agent.id || hostname();
  const instances = agent.instances.map((instance) => ({
    ...instance,
    url: instance.url.replace(/\/+$/, ''),
    id: instance.id || defaultId(agentId, instance),
  }));
  const seen = new Set<string>();
  for (const [at, instance] of instances.entries()) {
    if (seen.has(instance.id))
      throw invalid([
        `agent.instances[${at}].id: ${JSON.stringify(instance.id)} is used twice; give each instance its own id`,
      ]);
    seen.add(instance.id);
  }
  const advertiseUrl = (agent.advertiseUrl || `http://${hostname()}:${agent.port}`).replace(/\/+$/, '');
  return { ...agent, id: agentId, advertiseUrl, instances };
}

/** Ranks of one data-parallel engine share its url, and with it the port. */
function defaultId(agentId: string, { url, dataParallelRank: rank }: InstanceConfig): string {
  const id = `${agentId}:${portOf(url)}`;
  return rank === undefined ? id : `${id}:${rank}`;
}

function portOf(url: string): string {
  const { port, protocol } = new URL(url);
  return port || (protocol === 'https:' ? '443' : '80');
}

function isTree(value: unknown): value is Tree {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function invalid(problems: readonly string[]): LodestarError {
  return new LodestarError(
    'CONFIG_INVALID',
    `the configuration is not valid:\n${problems.map((line) => `  ${line}`).join('\n')}`,
  );
}
