import { describe, expect, it } from 'vitest';
import { GoldenDriver, readGolden, type GoldenSection } from './golden-driver.ts';

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

function tracesAToC(): string[] {
  const d = new GoldenDriver();
  d.start('A');
  d.printFree();
  d.add('a', range(1, 11), 3);
  d.run();
  d.printFree('free after a');
  d.add('b', range(1, 9), 1);
  d.run();
  d.printFree('free after b');
  d.add('c', range(1, 13), 1);
  d.run();
  d.printFree('free after c');
  d.add('d', range(1, 9), 1, { salt: 'x' });
  d.run();
  d.printFree('free after d');
  d.section('B');
  d.add('e', range(101, 125), 1);
  d.run();
  d.printFree();
  d.printReset();
  d.start('C', { blockCount: 9, maxBatchedTokens: 12 });
  d.add('p', range(201, 213), 12);
  d.add('q', range(301, 312), 12);
  d.run(40);
  d.printFree();
  return d.lines;
}

function tracesDToH(): string[] {
  const d = new GoldenDriver();
  d.start('D', { asyncScheduling: true });
  d.add('a', range(1, 11), 3);
  d.runPipelined();
  d.printFree();
  d.start('E', { blockCount: 9, policy: 'priority' });
  d.add('lo', range(201, 213), 12, { priority: 5 });
  d.stepOnce();
  d.add('hi', range(301, 312), 12, { priority: 0 });
  d.run(12);
  d.start('F', { blockCount: 30, maxBatchedTokens: 64 });
  d.add('x', range(1, 10), 1);
  d.add('y', range(1, 10), 1);
  d.stepOnce();
  d.start('G', { blockCount: 7, maxBatchedTokens: 64 });
  d.add('r1', range(1, 18), 4);
  d.add('r2', range(101, 118), 2);
  d.add('r3', range(201, 204), 1);
  d.run(8);
  d.start('H', { blockCount: 60, maxBatchedTokens: 8 });
  d.add('d1', [1, 2], 4);
  d.add('L', range(100, 120), 2);
  d.add('d2', [7, 8], 3);
  d.run(9);
  return d.lines;
}

/** Splits printed lines the way the golden parser does. */
function toSections(lines: string[]): Map<string, string[][]> {
  const sections = new Map<string, string[][]>();
  let steps: string[][] = [];
  for (const line of lines) {
    if (line.startsWith('== ')) sections.set(line.slice(3), (steps = []));
    else {
      if (/^ {2,3}(STEP|SCHED|UPDATE|free|reset)/.test(line)) steps.push([]);
      steps.at(-1)!.push(line);
    }
  }
  return sections;
}

function expectSameSteps(golden: GoldenSection, ours: string[][]): void {
  golden.steps.forEach((step, i) => expect(ours[i], `trace ${golden.name}, step ${i + 1}`).toEqual(step));
  expect(ours.length).toBe(golden.steps.length);
}

for (const [file, run, names] of [
  ['scheduler-golden-A-C.txt', tracesAToC, ['A', 'B', 'C']],
  ['scheduler-golden-D-H.txt', tracesDToH, ['D', 'E', 'F', 'G', 'H']],
] as const) {
  describe(`traces of the real vLLM scheduler, ${file}`, () => {
    const golden = readGolden(file);
    const ours = toSections(run());
    it('has the sections it should', () => expect([...golden.keys()]).toEqual(names));
    for (const name of names)
      it(`${name} agrees step by step`, () => expectSameSteps(golden.get(name)!, ours.get(name)!));
  });
}
