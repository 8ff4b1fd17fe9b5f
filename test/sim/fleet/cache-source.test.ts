import { expect, it } from 'vitest';
import { CACHE_SOURCES, type CacheSourceName } from '../../../sim/fleet/cache-source.ts';
import { parseCluster } from '../../../sim/fleet/cluster.ts';
import { runRuns } from '../../../sim/fleet/jobs.ts';
import type { RunResult } from '../../../sim/fleet/result.ts';
import { job, shortTrace } from './world.ts';

/** Caches that are too small for the shared prompts, one engine that dies and one that forgets. */
const cluster = parseCluster(
  '{"instances": [{"gpu": "A30", "kvTokens": 6000}, {"gpu": "A100", "kvTokens": 8000}], "events": [{"atS": 6, "kind": "die", "instance": 0, "restart": 3}, {"atS": 12, "kind": "clear-cache", "instance": 1}]}',
  'small caches',
);
const trace = { ...shortTrace, durationS: 120, maxRequests: 150 };

async function run(cacheSource: CacheSourceName): Promise<RunResult> {
  const [done] = await runRuns([job('prefix-load', { cluster, trace, cacheSource })], { threads: 1 });
  return (done as { result: RunResult }).result;
}

it('runs with each view, and tells cached tokens the better the more the doors know', async () => {
  const results = await Promise.all(CACHE_SOURCES.map(run));
  for (const result of results) expect(result.completed).toBeGreaterThan(140);
  const [estimate, shadow, exact] = results.map((result) => result.cachePredicted.door as number) as [
    number,
    number,
    number,
  ];
  expect(exact).toBeGreaterThanOrEqual(shadow);
  expect(shadow).toBeGreaterThan(estimate);
  expect(exact).toBeGreaterThan(0.9);
});

it('gives the same run twice', async () => {
  expect(JSON.stringify(await run('exact'))).toBe(JSON.stringify(await run('exact')));
});
