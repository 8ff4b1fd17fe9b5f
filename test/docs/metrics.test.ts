import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { MetricObject, Registry } from 'prom-client';
import { expect, test } from 'vitest';
import { startAgent } from '../../agent/main.ts';
import { Metrics } from '../../brain/metrics.ts';
import { loadConfig } from '../../shared/config/index.ts';
import { seededRng, silentLog } from '../../shared/env.ts';
import { VirtualClock } from '../helpers/virtual-clock.ts';
import { codeIn, readPage, rows, section } from './pages.ts';

/** `name type label,label` of every series but those of the process itself. */
function inCode(registry: Registry): string[] {
  // prom-client's metrics know their labels; its types do not say so.
  const metrics = registry.getMetricsAsArray() as unknown as (MetricObject & { labelNames: string[] })[];
  return metrics
    .filter(({ name }) => !/^lodestar_(agent|brain)_(process|nodejs)_/.test(name))
    .map(
      ({ name, labelNames }) =>
        `${name} ${registry.getSingleMetric(name)?.constructor.name.toLowerCase()} ${labelNames.join(',')}`,
    )
    .toSorted();
}

function inDocs(heading: string): string[] {
  return rows(section(readPage('docs/metrics.md'), heading))
    .map(([name = '', type = '', labels = '']) => `${codeIn(name).join('')} ${type} ${codeIn(labels).join(',')}`)
    .toSorted();
}

test('docs/metrics.md lists the series of the agent', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'lodestar-docs-'));
  const overrides = {
    token: 'token-of-the-docs-test',
    agent: { host: '127.0.0.1', port: 0, brainUrl: '', stateDir: dir, nvidiaSmiPath: '/nowhere/nvidia-smi' },
  };
  const agent = await startAgent(loadConfig({ env: {}, overrides }).agent, overrides.token, {
    clock: new VirtualClock(),
    rng: seededRng(1),
    log: silentLog,
  });
  try {
    expect(inDocs('## Agent')).toEqual(inCode(agent.context.metrics.registry));
  } finally {
    await agent.close();
    rmSync(dir, { recursive: true, force: true });
  }
});

test('docs/metrics.md lists the series of the brain', () => {
  const metrics = new Metrics(() => {
    throw new Error('the status is read at a scrape only');
  });
  // The registry is the brain's own affair; the labels of series without a value are nowhere else.
  expect(inDocs('## Brain')).toEqual(inCode(Reflect.get(metrics, 'registry') as Registry));
});
