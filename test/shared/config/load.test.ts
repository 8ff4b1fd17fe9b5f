import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { defaultConfig, envName, loadConfig } from '../../../shared/config/index.ts';
import { LodestarError } from '../../../shared/errors.ts';

const token = 'a-token-of-sixteen-or-more';
let dir = '';
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'lodestar-config-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function write(text: string, name = 'lodestar.yaml'): string {
  const file = join(dir, name);
  writeFileSync(file, text);
  return file;
}

function problem(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    expect(error).toBeInstanceOf(LodestarError);
    expect((error as LodestarError).code).toBe('CONFIG_INVALID');
    return (error as Error).message;
  }
  throw new Error('nothing was refused');
}

describe('layers', () => {
  it('fills every default', () => {
    const config = defaultConfig(token);
    expect(config.agent).toMatchObject({
      port: 8080,
      retries: 2,
      brainUrl: 'ws://127.0.0.1:7400',
      breaker: { failures: 3 },
      scrape: { gpuPeriodMs: 500 },
    });
    expect(config.brain).toMatchObject({
      port: 7400,
      policy: 'learned',
      learn: { hidden: [32, 32] },
      trust: { minSamples: 40 },
    });
    expect(config.agent.id).not.toBe('');
    expect(config.agent.advertiseUrl).toMatch(/^http:\/\/.+:8080$/);
  });

  it('lays flags over environment over file over defaults', () => {
    const file = write(
      `token: ${token}\nagent:\n  port: 1\n  retries: 1\n  connectTimeoutMs: 7\nbrain: {policy: random}\n`,
    );
    const env = {
      LODESTAR_AGENT_PORT: '2',
      LODESTAR_AGENT_RETRIES: '5',
      LODESTAR_BRAIN_LEARN_HIDDEN: '[8]',
      LODESTAR_AGENT_FIRST_BYTE_TIMEOUT_MS: '9',
    };
    const config = loadConfig({
      file,
      env,
      overrides: { agent: { port: 3 } },
      sets: ['agent.breaker.failures=4', 'agent.brainUrl='],
    });
    expect(config.agent).toMatchObject({
      port: 3,
      retries: 5,
      connectTimeoutMs: 7,
      firstByteTimeoutMs: 9,
      brainUrl: '',
      breaker: { failures: 4, openMs: 1000 },
    });
    expect(config.brain).toMatchObject({ policy: 'random', learn: { hidden: [8], roundMs: 5000 } });
  });

  it('names variables after the path', () => {
    expect(envName('agent.firstByteTimeoutMs')).toBe('LODESTAR_AGENT_FIRST_BYTE_TIMEOUT_MS');
    expect(envName('brain.tfjsNodeGpuDir')).toBe('LODESTAR_BRAIN_TFJS_NODE_GPU_DIR');
  });

  it('names instances after agent and port, and refuses the same name twice', () => {
    const config = loadConfig({
      env: {},
      overrides: { token, agent: { id: 'g7', instances: [{ url: 'http://127.0.0.1:8000/' }] } },
    });
    expect(config.agent.instances[0]).toMatchObject({ id: 'g7:8000', url: 'http://127.0.0.1:8000', maxNumSeqs: 256 });
    const ranks = {
      token,
      agent: {
        id: 'g7',
        instances: [
          { url: 'http://127.0.0.1:8000', dataParallelRank: 0 },
          { url: 'http://127.0.0.1:8000', dataParallelRank: 1 },
        ],
      },
    };
    expect(loadConfig({ env: {}, overrides: ranks }).agent.instances.map(({ id }) => id)).toEqual([
      'g7:8000:0',
      'g7:8000:1',
    ]);
    const twice = {
      token,
      agent: {
        instances: [
          { id: 'x', url: 'http://a:1' },
          { id: 'x', url: 'http://b:2' },
        ],
      },
    };
    expect(problem(() => loadConfig({ env: {}, overrides: twice }))).toContain(
      'agent.instances[1].id: "x" is used twice',
    );
  });
});

describe('refusals', () => {
  it.each([
    ['agent: {prot: 8080}', 'agent.prot: unknown key in FILE; did you mean `port`?'],
    ['agents: {}', 'agents: unknown key in FILE; did you mean `agent`?'],
    ['agent: {port: "x"}', 'agent.port: found "x" (text) in FILE; set whole number from 0 to 65535'],
    ['agent: {port: 99999}', 'agent.port: found 99999 (number) in FILE; set whole number from 0 to 65535'],
    ['agent: {instances: [{}]}', 'agent.instances[0].url: is missing in FILE; set text'],
    [
      'agent: {instances: [{url: "localhost:1"}]}',
      'agent.instances[0].url: "localhost:1" (text) is not an http:// or https:// URL in FILE',
    ],
    [
      'agent: {instances: [{url: "http://a", maxNumSeq: 1}]}',
      'agent.instances[0].maxNumSeq: unknown key in FILE; did you mean `maxNumSeqs`?',
    ],
    ['agent: {policy: best}', 'agent.policy: found "best" (text) in FILE; set learned | round-robin'],
    ['agent: {scrape: 5}', 'agent.scrape: found 5 (number) in FILE; write a group of keys here'],
    [
      'brain: {learn: {hidden: [0]}}',
      'brain.learn.hidden[0]: found 0 (number) in FILE; set whole number from 4 to 256, a multiple of 4',
    ],
    [
      'brain: {learn: {hidden: [64, x]}}',
      'brain.learn.hidden[1]: found "x" (text) in FILE; set whole number from 4 to 256, a multiple of 4',
    ],
    [
      'agent: {instances: [{url: "http://a", kvEvents: {endpoint: "tcp://*:5557"}}]}',
      'agent.instances[0].kvEvents.endpoint: "tcp://*:5557" (text) has a `*`, which is for the side that listens, vLLM; name the host here',
    ],
    [
      'agent: {instances: [{url: "http://a", kvEvents: {endpoint: "tcp://h:1", replayEndpoint: "h:2"}}]}',
      'kvEvents.replayEndpoint: "h:2" (text) is not tcp://<host>:<port> or ipc://<path>',
    ],
    [
      'agent: {instances: [{url: "http://a", kvEvents: {endpoint: "tcp://h:65536"}}]}',
      'kvEvents.endpoint: "tcp://h:65536" (text) is not tcp://<host>:<port>',
    ],
    [
      'agent: {instances: [{url: "http://a", kvEvents: {}}]}',
      'agent.instances[0].kvEvents.endpoint: is missing in FILE; set text',
    ],
    ['agent: {instances: [5]}', 'agent.instances[0]: found 5 (number) in FILE; write a group of keys here'],
    [
      'brain: {learn: {hidden: []}}',
      'brain.learn.hidden: found a list in FILE; set list of 1 to 4: whole number from 4 to 256, a multiple of 4',
    ],
    ['agent:', 'agent: found nothing in FILE; write a group of keys here'],
    ['logLevel: loud', 'logLevel: found "loud" (text) in FILE; set trace | debug'],
  ])('%s', (yaml, expected) => {
    const file = write(`token: ${token}\n${yaml}\n`);
    expect(problem(() => loadConfig({ file, env: {} }))).toContain(expected.replace('FILE', file));
  });

  it('lists every problem at once and names the layer', () => {
    const file = write(`token: ${token}\nagent: {port: a, retries: b}\n`);
    const text = problem(() => loadConfig({ file, env: { LODESTAR_AGENT_RETRIES: 'many' } }));
    expect(text).toContain(`agent.port: found "a" (text) in ${file}`);
    expect(text).toContain('agent.retries: found "many" (text) in LODESTAR_AGENT_RETRIES');
  });

  it('says once what breaks two rules', () => {
    const text = problem(() => loadConfig({ env: {}, overrides: { token, brain: { learn: { hidden: [3] } } } }));
    expect(text.split('found 3')).toHaveLength(2);
  });

  it('refuses unknown variables and flags', () => {
    expect(problem(() => loadConfig({ env: { LODESTAR_AGENT_PROT: '1' } }))).toContain(
      'LODESTAR_AGENT_PROT: unknown variable; did you mean `LODESTAR_AGENT_PORT`?',
    );
    expect(problem(() => loadConfig({ env: {}, sets: ['agent.retrys=1'] }))).toContain(
      '--set agent.retrys: unknown key; did you mean `agent.retries`?',
    );
    expect(problem(() => loadConfig({ env: {}, sets: ['agent.port'] }))).toContain('has no value');
    expect(problem(() => loadConfig({ env: {}, sets: ['zzzzzzzzzzzzzz=1'] }))).toContain('zzzzzzzzzzzzzz: unknown key');
  });

  it('refuses what is not YAML, not a group, or not there', () => {
    expect(problem(() => loadConfig({ file: write('a: [\n'), env: {} }))).toMatch(/line \d+: not YAML/);
    expect(problem(() => loadConfig({ file: write('- a\n'), env: {} }))).toContain('holds no keys');
    expect(problem(() => loadConfig({ file: join(dir, 'none'), env: {} }))).toContain('lodestar config init');
  });
});

describe('token', () => {
  it('is needed, and never shown', () => {
    expect(problem(() => loadConfig({ env: {} }))).toContain('run `lodestar config init`');
    const text = problem(() => loadConfig({ env: { LODESTAR_TOKEN: 'short' } }));
    expect(text).toContain('a text of 5 characters in LODESTAR_TOKEN; at least 16');
    expect(text).not.toContain('short');
  });

  it('comes from a file beside the configuration, or from the environment over it', () => {
    write(`${token}\n`, 'secret');
    const file = write('tokenFile: secret\n');
    expect(loadConfig({ file, env: {} }).token).toBe(token);
    expect(loadConfig({ file, env: { LODESTAR_TOKEN: `${token}2` } }).token).toBe(`${token}2`);
    expect(problem(() => loadConfig({ file: write('tokenFile: nowhere\n'), env: {} }))).toContain(
      'tokenFile: cannot read',
    );
    write('x', 'secret');
    expect(problem(() => loadConfig({ file: write('tokenFile: secret\n'), env: {} }))).toContain('at least 16');
    expect(problem(() => loadConfig({ file: write(`tokenFile: secret\ntoken: ${token}\n`), env: {} }))).toContain(
      'keep one of them',
    );
  });
});

describe('URLs that requests cannot be sent to', () => {
  it.each([
    [
      'agent.instances[0].url',
      { agent: { instances: [{ url: 'http://127.0.0.1:8000/v1' }] } },
      'write http://127.0.0.1:8000',
    ],
    [
      'agent.instances[0].url',
      { agent: { instances: [{ url: 'http://127.0.0.1:8000/?a=1' }] } },
      'write http://127.0.0.1:8000',
    ],
    [
      'agent.instances[0].url',
      { agent: { instances: [{ url: 'ftp://127.0.0.1' }] } },
      'is not an http:// or https:// URL',
    ],
    ['agent.advertiseUrl', { agent: { advertiseUrl: 'http://host:8080/door' } }, 'write http://host:8080'],
  ])('are refused with their key: %s of %j', (key, overrides, why) => {
    const load = (): unknown => loadConfig({ env: {}, overrides: { token: 'a-token-of-the-tests', ...overrides } });
    expect(load).toThrow(key);
    expect(load).toThrow(why);
  });
});
