import { expect, test } from 'vitest';
import { cpuTimes, memUsedRatio } from '../../../../agent/door/collectors/host.ts';

test('busy time is all but idle and waiting for disks; time of guests is in that of their users already', () => {
  const stat = 'cpu  100 10 40 800 30 5 15 0 99 99\ncpu0 100 10 40 800 30 5 15 0 99 99\nintr 1\n';
  expect(cpuTimes(stat)).toEqual({ busy: 170, total: 1000 });
});

test('used memory is what is not available', () => {
  expect(memUsedRatio('MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    250 kB\n')).toBe(0.75);
});

test.each(['', 'cpu  1 2\n', 'cpu  a b c d e\n'])('pages that lack them say so: %j', (text) => {
  expect(() => cpuTimes(text)).toThrow('/proc/stat');
  expect(() => memUsedRatio(text)).toThrow('/proc/meminfo');
});
