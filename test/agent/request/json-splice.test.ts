import { expect, test } from 'vitest';
import { spliced } from '../../../agent/request/json-splice.ts';

const TEXT = '0123456789abcdef';

test('a change is made wherever it and the cuts of the body lie', () => {
  for (let start = 0; start <= TEXT.length; start++) {
    for (let end = start; end <= TEXT.length; end += 3) {
      for (let size = 1; size <= TEXT.length; size++) {
        const body: Buffer[] = [];
        for (let at = 0; at < TEXT.length; at += size) body.push(Buffer.from(TEXT.slice(at, at + size)));
        const pieces = spliced(body, { start, end, text: '<>' });
        expect(Buffer.concat(pieces).toString()).toBe(`${TEXT.slice(0, start)}<>${TEXT.slice(end)}`);
        expect(pieces.every((piece) => piece.length > 0)).toBe(true);
      }
    }
  }
});

test('without a change the body stays itself, and with one no piece is copied', () => {
  const body = [Buffer.from('abc'), Buffer.from('def')];
  expect(spliced(body, undefined)).toBe(body);
  for (const piece of spliced(body, { start: 1, end: 1, text: '-' }).filter((one) => one.toString() !== '-')) {
    expect(body.some(({ buffer, byteOffset }) => buffer === piece.buffer && piece.byteOffset >= byteOffset)).toBe(true);
  }
});
