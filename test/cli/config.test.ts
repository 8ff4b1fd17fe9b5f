import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { addConfigFlags, configFromFlags, type ConfigFlags } from '../../cli/config-flags.ts';
import { initFile } from '../../cli/config.ts';
import { loadConfig } from '../../shared/config/index.ts';

let dir = '';
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'lodestar-init-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

it('makes a private file with a fresh token and never overwrites', () => {
  const first = join(dir, 'etc', 'a.yaml');
  const second = join(dir, 'b.yaml');
  initFile(first);
  initFile(second);
  expect(statSync(first).mode & 0o777).toBe(0o600);
  const tokens = [first, second].map((file) => loadConfig({ file, env: {} }).token);
  expect(tokens[0]).toHaveLength(43);
  expect(tokens[0]).not.toBe(tokens[1]);
  expect(() => initFile(first)).toThrow('exists and stays as it is');
});

it('reads the common flags and --set over the file', () => {
  const file = join(dir, 'c.yaml');
  initFile(file);
  const command = addConfigFlags(new Command('agent'), 'agent');
  command.parse(
    [
      '-c',
      file,
      '--port',
      '0',
      '--vllm',
      'http://127.0.0.1:8000',
      '--vllm',
      'http://127.0.0.1:8001',
      '--id',
      'g1',
      '--set',
      'agent.retries=0',
    ],
    { from: 'user' },
  );
  const { agent } = configFromFlags(command.opts<ConfigFlags>(), 'agent', {});
  expect(agent).toMatchObject({ id: 'g1', port: 0, retries: 0 });
  expect(agent.instances.map((instance) => instance.id)).toEqual(['g1:8000', 'g1:8001']);
  expect(() => configFromFlags({ set: ['agent.port=x'], config: file }, 'agent', {})).toThrow(
    '--set agent.port; set whole number',
  );
});

it('names the flag that was written when its value is refused', () => {
  const file = join(dir, 'd.yaml');
  initFile(file);
  const refused = (args: string[]) => {
    const command = addConfigFlags(new Command('agent'), 'agent');
    command.parse(['-c', file, ...args], { from: 'user' });
    return expect(() => configFromFlags(command.opts<ConfigFlags>(), 'agent', {}));
  };
  refused(['--policy', 'best']).toThrow('agent.policy: found "best" (text) in --policy; set learned');
  refused(['--port', 'x']).toThrow('agent.port: found "x" (text) in --port; set whole number');
  refused(['--port', '[']).toThrow('--port: "[" is not a YAML value');
  refused(['--vllm', 'localhost:1']).toThrow('is not an http:// or https:// URL in --vllm');
  refused(['--set', 'agent.policy=best']).toThrow('in --set agent.policy;');
});
