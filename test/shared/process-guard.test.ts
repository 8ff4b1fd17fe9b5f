import { EventEmitter } from 'node:events';
import { expect, test } from 'vitest';
import { guardProcess, unhandledRejections } from '../../shared/process-guard.ts';
import { logSpy } from '../helpers/log-spy.ts';
import { VirtualClock } from '../helpers/virtual-clock.ts';

function guarded() {
  const { log, lines } = logSpy();
  const clock = new VirtualClock();
  const exits: number[] = [];
  const events = Object.assign(new EventEmitter(), { exit: (code: number) => void exits.push(code) });
  guardProcess(log, clock, events);
  return {
    lines: lines as { level: number; msg: string; count?: number; err?: { stack?: string } }[],
    clock,
    exits,
    events,
  };
}

test('a rejection that nobody deals with is said with its stack and counted, and the process goes on', () => {
  const { lines, clock, exits, events } = guarded();
  const before = unhandledRejections();
  for (let i = 0; i < 50; i++) events.emit('unhandledRejection', new Error('of a fit'));
  clock.advance(1000);
  events.emit('unhandledRejection', 'no error at all');
  expect(unhandledRejections() - before).toBe(51);
  expect(lines.map(({ level, count }) => [level, count])).toEqual([
    [50, 1],
    [50, 50],
  ]);
  expect(lines[0]?.err?.stack).toContain('process-guard.test');
  expect(exits).toEqual([]);
});

test('an exception that nobody catches is said, and ends the process', () => {
  const { lines, exits, events } = guarded();
  events.emit('uncaughtException', new Error('in a callback'));
  expect(lines).toMatchObject([{ level: 60, err: { message: 'in a callback' } }]);
  expect(exits).toEqual([1]);
});
