import { expect, test } from 'vitest';
import { LogLines } from '../../shared/log-lines.ts';

/** A descriptor that takes `room` bytes, and then fails. */
function device(room: number, code = 'ENOSPC') {
  const state = { room, text: '' };
  const lines = new LogLines(7, (_fd, bytes, offset) => {
    const part = bytes.subarray(offset, offset + Math.min(state.room, 10));
    if (part.length === 0) throw Object.assign(new Error(code), { code });
    state.room -= part.length;
    state.text += Buffer.from(part).toString();
    return part.length;
  });
  return { state, lines };
}

test('lines are written whole, in order', () => {
  const { state, lines } = device(1000);
  lines.write('{"a":"a line that takes several writes"}\n');
  lines.write('{"b":1}\n');
  expect(state.text).toBe('{"a":"a line that takes several writes"}\n{"b":1}\n');
});

test.each(['ENOSPC', 'EPIPE', 'EAGAIN'])(
  'what cannot be written for %s is lost, and told of once it works again',
  (code) => {
    const { state, lines } = device(12, code);
    lines.write('{"first":1}\n');
    state.room = 5;
    lines.write('{"cut":"in the middle"}\n');
    for (let i = 0; i < 3; i++) lines.write('{"lost":1}\n');
    state.room = 1000;
    lines.write('{"last":1}\n');
    expect(state.text).toBe('{"first":1}\n{"cut\n{"level":40,"msg":"4 log lines could not be written"}\n{"last":1}\n');
  },
);
