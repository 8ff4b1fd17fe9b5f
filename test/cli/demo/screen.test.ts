import { EventEmitter } from 'node:events';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { Screen, type Terminal } from '../../../cli/demo/screen.ts';
import { midway } from './demo-state.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function terminal(size: { isTTY?: true; columns?: number; rows?: number }): { out: Terminal; writes: string[] } {
  const writes: string[] = [];
  const write = (text: string): boolean => writes.push(text) > 0;
  return { out: Object.assign(new EventEmitter(), { write, ...size }) as unknown as Terminal, writes };
}

it('redraws in place within the terminal and gives the cursor back', () => {
  const { out, writes } = terminal({ isTTY: true, columns: 80, rows: 10 });
  const screen = new Screen(out, midway);
  vi.advanceTimersByTime(250);
  const second = writes.at(-1) ?? '';
  expect(second).toContain('\u001b[8A');
  expect(second.split('\n')).toHaveLength(9);
  screen.close();
  screen.close();
  expect(writes.filter((text) => text.includes('\u001b[?25h'))).toHaveLength(1);
  expect(out).toMatchObject({ _eventsCount: 0 });
});

it('writes a line each five seconds where there is no terminal', () => {
  const { out, writes } = terminal({});
  const screen = new Screen(out, midway);
  vi.advanceTimersByTime(10_000);
  screen.close();
  expect(writes).toHaveLength(4);
  expect(writes.join('')).not.toContain('\u001b');
});
