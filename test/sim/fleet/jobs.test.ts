import { expect, it } from 'vitest';
import { runRuns } from '../../../sim/fleet/jobs.ts';
import { job, shortTrace } from './world.ts';

// More than one thread needs the compiled tree: test/cli/sim.test.ts.

it('gives results in the order of the jobs, whatever ran before', async () => {
  const ended: string[] = [];
  const options = { threads: 1, onDone: (count: number, total: number) => ended.push(`${count}/${total}`) };
  const both = await runRuns([job('round-robin'), job('lmetric')], options);
  expect(both.map(({ result }) => result.policy)).toEqual(['round-robin', 'lmetric']);
  expect(ended).toEqual(['1/2', '2/2']);
  expect(both[1]?.result).toMatchObject({ requests: 40, completed: 40, failed: 0 });
  const [alone] = await runRuns([job('lmetric')], options);
  expect(JSON.stringify(alone)).toBe(JSON.stringify(both[1]));
});

it('shares the traffic among entries and sums runs up for plots', async () => {
  const [done] = await runRuns([job('lmetric', { entries: 4, plots: true })], { threads: 1 });
  expect(done?.result.completed).toBe(40);
  expect(done?.plots?.atS).toHaveLength(40);
  expect(done?.plots?.ttftCdfMs).toHaveLength(101);
  expect(done?.offeredRps).toBeCloseTo(8, 6);
});

it('fails with the first error', async () => {
  await expect(
    runRuns([job('lmetric', { trace: { ...shortTrace, file: 'synthetic:nothing' } })], { threads: 1 }),
  ).rejects.toThrow('made-up ones are synthetic:shared-prompts');
});
