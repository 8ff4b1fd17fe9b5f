import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { summaryText } from '../../../cli/sim-matrix-report.ts';
import { bundledMatrix, type Cell, Matrix, readMatrix } from '../../../sim/fleet/matrix.ts';
import { bestBut, summarizeMatrix } from '../../../sim/fleet/matrix-summary.ts';
import type { RunResult } from '../../../sim/fleet/result.ts';
import { runMatrix } from '../../../sim/fleet/run-matrix.ts';
import { resultOf } from './world.ts';

const SMALL = `
requests: 40
warmupS: 1
clusters:
  one: {instances: [{gpu: A30}, {gpu: A30}], events: [{at: 0.5, kind: throttle, instance: 1, factor: 3}]}
traces:
  shared: {file: 'synthetic:shared-prompts', lengthScale: 0.25, outputScale: 0.1}
cells:
  - {cluster: one, trace: shared, load: 0.5, entries: 1}
  - {cluster: one, trace: shared, load: 0.5, entries: 4}
`;

describe('published matrix', () => {
  const matrix = readMatrix(bundledMatrix);
  const valuesOf = (axis: 'cluster' | 'trace' | 'load' | 'entries'): unknown[] => [
    ...new Set(matrix.cells.map((cell) => cell[axis])),
  ];

  it('has 40 cells with every value of every axis', () => {
    expect(matrix.cells).toHaveLength(40);
    expect(new Set(matrix.cells.map((cell) => cell.name)).size).toBe(40);
    expect(valuesOf('cluster')).toHaveLength(9);
    expect(valuesOf('trace')).toHaveLength(6);
    expect(valuesOf('load').toSorted()).toEqual([0.4, 0.6, 0.8, 0.95]);
    expect(new Set(valuesOf('entries'))).toEqual(new Set([1, 4, 16]));
  });

  it('names traces that are there', () => {
    const files = matrix.cells
      .map((cell) => matrix.capacityJob(cell).trace.file)
      .filter((file) => !file.startsWith('synthetic:'));
    expect(files.filter((file) => !existsSync(file))).toEqual([]);
  });

  it('selects cells by number and name', () => {
    const numbers = (filter: string): number[] => matrix.select(filter).map((cell) => cell.number);
    expect(numbers('9,1,5')).toEqual([1, 5, 9]);
    expect(numbers('large32*')).toEqual([27, 28, 29, 30]);
    expect(numbers('*/16,1')).toContain(2);
    expect(matrix.select(undefined)).toHaveLength(40);
    expect(() => matrix.select('1,moon*')).toThrow('no cell is moon*: cells are 1 to 40');
  });
});

describe('matrix file', () => {
  it('places events by their share of the run, and loads by capacity', () => {
    const matrix = new Matrix(SMALL, 'm.yaml');
    const run = matrix.runJob(
      matrix.cells[1] as Cell,
      { capacityRps: 8, requests: 40 },
      { policy: 'lmetric', seed: 3, objective: 'ttft' },
    );
    expect(run).toMatchObject({
      entries: 4,
      seed: 3,
      trace: { pace: { rate: 4 }, maxRequests: 40 },
      cluster: { stepLaw: 'rough', events: [{ atS: 5, kind: 'throttle' }] },
    });
  });

  it.each([
    [SMALL.replace('cluster: one', 'cluster: two'), 'cells[0].cluster: there is no two; clusters are one'],
    [SMALL.replace('trace: shared', 'trace: other'), 'cells[0].trace: there is no other; traces are shared'],
    [SMALL.replace('gpu: A30', 'gpu: B30'), "clusters.one: instances[0].gpu: unknown GPU 'B30'"],
    [SMALL.replace('at: 0.5', 'at: 2'), 'clusters.one.events.0.at'],
    [SMALL.replace('load: 0.5', 'load: 0'), 'cells.0.load'],
    ['cells: [', 'm.yaml line 1: is not YAML'],
  ])('is refused with the field named', (text, message) => {
    expect(() => new Matrix(text, 'm.yaml')).toThrow(message);
  });

  it('is run cell by cell, with each capacity measured once', async () => {
    const matrix = new Matrix(SMALL, 'm.yaml');
    const result = await runMatrix(matrix, {
      cells: matrix.cells,
      policies: ['round-robin', 'lmetric'],
      seeds: [1, 2],
      objective: 'ttft',
      threads: 1,
    });
    expect(Object.keys(result.capacities)).toEqual(['one/shared']);
    expect(
      result.cells.map(({ runs }) => runs.map(({ policy, seed, completed }) => `${policy} ${seed} ${completed}`)),
    ).toEqual(
      Array.from({ length: 2 }, () => ['round-robin 1 40', 'lmetric 1 40', 'round-robin 2 40', 'lmetric 2 40']),
    );
    expect(result.cells[0]?.offeredRps).toBeCloseTo(0.5 * (result.capacities['one/shared']?.capacityRps ?? 0), 6);
    expect(result.summary.policies['lmetric']?.best?.ttftMean.cells).toBe(2);
    expect(summaryText(result.summary)).not.toContain('`learned`');
  });
});

describe('summary of a matrix', () => {
  const cell = (number: number, entries: number): Cell => ({
    number,
    entries,
    name: `c/t/0.8/${entries}`,
    cluster: 'c',
    trace: 't',
    load: 0.8,
  });
  const runs = (learned: number, prefixLoad: number, other: number, changes: Partial<RunResult> = {}): RunResult[] => [
    resultOf('learned', 1, learned),
    resultOf('prefix-load', 1, prefixLoad),
    resultOf('lmetric', 1, other, changes),
    resultOf('oracle', 1, 1),
  ];

  it('has ratios above 1 where learned is better, the best baseline of each cell, and the gain that many entries keep', () => {
    const summary = summarizeMatrix([
      { cell: cell(1, 1), runs: runs(100, 400, 200) },
      { cell: cell(2, 16), runs: runs(100, 100, 250) },
    ]);
    const { prefixLoad, best, paper } = summary.policies['learned']!;
    expect(prefixLoad?.ttftMean).toMatchObject({
      cells: 2,
      geomean: expect.closeTo(2),
      min: expect.closeTo(1),
      minCell: 'c/t/0.8/16',
      shareAtLeast1: 1,
    });
    expect(best?.ttftMean.geomean).toBeCloseTo(Math.sqrt(2));
    expect(paper).toBeNull();
    expect(summary.bestOfCell.map((one) => one.best)).toEqual(['lmetric', 'prefix-load']);
    expect(summary.byAxis.entries['16']?.prefixLoad?.geomean).toBeCloseTo(1);
    expect(summary.gainKept).toMatchObject({ cells: ['c/t/0.8/16'], geomean: expect.closeTo(0.25) });
    expect(prefixLoad?.ttftMean.ci95[0]).toBeCloseTo(1);
    expect(prefixLoad?.ttftMean.ci95[1]).toBeCloseTo(4);
    expect(summaryText(summary)).toContain('learned against prefix-load: mean TTFT 2.00');
  });

  it('pairs seeds', () => {
    const twoSeeds = [
      resultOf('learned', 1, 100),
      resultOf('learned', 2, 10),
      resultOf('prefix-load', 2, 40),
      resultOf('prefix-load', 1, 100),
    ];
    expect(
      summarizeMatrix([{ cell: cell(1, 1), runs: twoSeeds }]).policies['learned']?.prefixLoad?.ttftMean.geomean,
    ).toBeCloseTo(2);
  });

  it('calls no baseline the best that loses requests', () => {
    expect(bestBut('learned')(runs(100, 400, 200, { failed: 5 }))).toBe('prefix-load');
    expect(bestBut('learned')(runs(100, 400, 200))).toBe('lmetric');
    expect(bestBut('lmetric')(runs(100, 400, 200))).toBe('prefix-load');
  });
});
