import { beforeAll, describe, expect, it } from 'vitest';
import { simPage } from '../../../sim/fleet/html.ts';
import type { RunDone } from '../../../sim/fleet/job.ts';
import { runRuns } from '../../../sim/fleet/jobs.ts';
import { summarizeRuns } from '../../../sim/fleet/summary.ts';
import { barChart, lineChart } from '../../../sim/fleet/svg.ts';
import { job } from './world.ts';

const axis = { label: 'x <s>', tick: String };

describe('page', () => {
  let runs: RunDone[];
  beforeAll(async () => {
    runs = await runRuns([job('round-robin', { plots: true }), job('lmetric', { plots: true })], { threads: 1 });
  });

  it('shows a table, a legend and seven plots, and needs nothing from elsewhere', () => {
    const page = simPage({
      facts: [['Trace', '<img src=x onerror="alert(1)">']],
      summary: summarizeRuns(runs.map(({ result }) => result)),
      runs,
    });
    expect(page).toContain('&lt;img src=x onerror=&quot;alert(1)&quot;&gt;');
    expect(page.match(/<figure>/g)).toHaveLength(7);
    // Heuristics predict nothing.
    expect(page.match(/nothing to show/g)).toHaveLength(1);
    expect(page.match(/<li>/g)).toHaveLength(2);
    expect(page).toContain('TTFT (ms, log scale)');
    expect(page).toContain('prefers-color-scheme:dark');
    expect(page).not.toMatch(/<script|<link|<img|https?:|url\(/);
    expect(page).not.toMatch(/NaN|undefined|Infinity/);
  });
});

describe('charts', () => {
  it('break a line where nothing was seen and stay within the frame', () => {
    const chart = lineChart('t', axis, { label: 'ms', tick: String, log: true }, [
      {
        name: 'a"b',
        index: 1,
        points: [
          { x: 0, y: 10 },
          { x: 1, y: null },
          { x: 2, y: 0 },
          { x: 3, y: 3000 },
        ],
      },
    ]);
    expect(chart).toContain('a&quot;b');
    expect(chart).toContain('x &lt;s&gt;');
    const drawn = /class="line s1" d="([^"]*)"/.exec(chart)?.[1] ?? '';
    expect(drawn.match(/M/g)).toHaveLength(2);
    for (const [x, y] of drawn
      .split(/[ML]/)
      .slice(1)
      .map((point) => point.split(' ').map(Number) as [number, number])) {
      expect(x).toBeGreaterThanOrEqual(62);
      expect(x).toBeLessThanOrEqual(612);
      expect(y).toBeGreaterThanOrEqual(12);
      expect(y).toBeLessThanOrEqual(256);
    }
  });

  it('are drawn of a single value, and say when there is none', () => {
    expect(lineChart('t', axis, axis, [{ name: 'a', index: 0, points: [{ x: 5, y: 5 }] }])).not.toMatch(/NaN|Infinity/);
    expect(
      lineChart('t', axis, { ...axis, log: true }, [{ name: 'a', index: 0, points: [{ x: 1, y: 5 }] }]),
    ).not.toMatch(/NaN|Infinity/);
    expect(lineChart('t', axis, axis, [])).toContain('nothing to show');
    expect(barChart('t', ['i0'], axis, [{ name: 'a', index: 0, points: [{ x: 0, y: 0 }] }])).not.toMatch(
      /NaN|Infinity/,
    );
  });
});
