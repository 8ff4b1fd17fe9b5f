import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../../shared/package-root.ts';
import { readTrace } from '../../../sim/workloads/index.ts';
import { endlessHitRatio } from './hit-ratio.ts';

const folder = join(packageRoot, 'sim/data/traces');
const files = readdirSync(folder).filter((name) => name.endsWith('.gz'));

describe('traces that come with the package', () => {
  it.each([
    ['azure-conv-2023-first4000.csv.gz', 4000, 0],
    ['lmcache-agent-part.tar.gz', 1002, 0.907],
    ['mooncake-conversation-first10min.jsonl.gz', 1750, 0.289],
    ['mooncake-synthetic-first2000.jsonl.gz', 2000, 0.336],
    ['servegen-deepseek-r1-first4000.csv.gz', 4000, 0],
  ] as const)('%s', (name, count, hitRatio) => {
    const { requests } = readTrace(join(folder, name), { seed: 1, lengthScale: 1, outputScale: 1 });
    expect(requests).toHaveLength(count);
    expect(endlessHitRatio(requests)).toBeCloseTo(hitRatio, 2);
  });

  it('are all of them, and small', () => {
    expect(files).toHaveLength(5);
    expect(files.reduce((sum, name) => sum + statSync(join(folder, name)).size, 0)).toBeLessThan(1 << 20);
  });
});
