import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packageRoot } from '../../../shared/package-root.ts';
import { capacityOf } from '../../../sim/fleet/capacity.ts';
import { parseCluster } from '../../../sim/fleet/cluster.ts';
import { makeScenario } from '../../../sim/fleet/scenario.ts';
import { pair, request, shortTrace } from './world.ts';

// Prompts that share nothing, and few at a time: what instances do adds up.
const azure = {
  ...shortTrace,
  file: join(packageRoot, 'sim/data/traces/azure-conv-2023-first4000.csv.gz'),
  maxRequests: 120,
  outputScale: 0.2,
  durationS: undefined,
};

it('measures more for more instances, and not the events', async () => {
  const { requests } = makeScenario(azure, pair, 1);
  const one = parseCluster('{"instances": [{"gpu": "A30", "maxNumSeqs": 8}]}', 'one');
  const two = parseCluster('{"instances": [{"gpu": "A30", "maxNumSeqs": 8, "count": 2}]}', 'two');
  const dying = parseCluster(
    '{"instances": [{"gpu": "A30", "maxNumSeqs": 8, "count": 2}], "events": [{"atS": 1, "kind": "die", "instance": 0}]}',
    'dying',
  );
  const single = await capacityOf(one, requests, 1);
  const double = await capacityOf(two, requests, 1);
  expect(double / single).toBeGreaterThan(1.6);
  expect(double / single).toBeLessThan(2.4);
  expect(await capacityOf(dying, requests, 1)).toBe(double);
});

it('needs more than one request', async () => {
  await expect(capacityOf(pair, [request(0, 0)], 1)).rejects.toThrow('capacity cannot be measured with 1 requests');
});
