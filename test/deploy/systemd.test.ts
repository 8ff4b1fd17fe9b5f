import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { defaultConfig } from '../../shared/config/index.ts';
import { packageRoot } from '../../shared/package-root.ts';

const config = defaultConfig('a-token-of-sixteen-or-more');
const unit = (name: string): string =>
  readFileSync(join(packageRoot, `deploy/systemd/lodestar-${name}.service`), 'utf8');
const value = (text: string, key: string): string | undefined => new RegExp(`^${key}=(.*)$`, 'm').exec(text)?.[1];

it.each(['agent', 'brain'] as const)('the unit of the %s fits the defaults of the configuration', (name) => {
  const text = unit(name);
  expect(value(text, 'ExecStart')).toBe(`/usr/bin/lodestar ${name} --config /etc/lodestar/lodestar.yaml`);
  expect(`/var/lib/${value(text, 'StateDirectory')}`).toBe(config[name].stateDir);
  expect(value(text, 'Restart')).toBe('always');
});

it('the agent may drain before it is killed', () => {
  expect(Number(value(unit('agent'), 'TimeoutStopSec')) * 1000).toBeGreaterThan(config.agent.drainTimeoutMs);
  expect(value(unit('agent'), 'KillMode')).toBe('mixed');
});
