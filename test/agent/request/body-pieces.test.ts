import { expect, test } from 'vitest';
import { BodyPieces } from '../../../agent/request/body-pieces.ts';
import { seededRng } from '../../../shared/env.ts';
import { below, pick } from '../../helpers/random.ts';

test('bytes stay in order, and little more than they is held, whatever their pieces are', () => {
  const rng = seededRng(3);
  for (let round = 0; round < 200; round++) {
    const pieces = new BodyPieces();
    const all: Buffer[] = [];
    for (let i = below(rng, 40); i >= 0; i--) {
      const piece = Buffer.alloc(1 + below(rng, pick(rng, [2, 500, 10_000, 70_000])), below(rng, 256));
      all.push(piece);
      pieces.add(piece);
    }
    const whole = Buffer.concat(all);
    expect(pieces.bytes).toBe(whole.length);
    expect(pieces.heldBytes).toBeLessThanOrEqual(2 * whole.length + 8192);
    const list = pieces.list();
    expect(Buffer.concat(list).equals(whole)).toBe(true);
    expect(list.every((piece) => piece.length > 0)).toBe(true);
  }
});

test('a body that trickles in byte by byte is held in few pieces', () => {
  const pieces = new BodyPieces();
  for (let i = 0; i < 100_000; i++) pieces.add(Buffer.from([i % 256]));
  expect(pieces.list().length).toBeLessThan(10);
  expect(pieces.heldBytes).toBeLessThan(200_000);
});

test('small pieces between large ones leave no half-empty buffers behind', () => {
  const pieces = new BodyPieces();
  for (let i = 0; i < 50; i++) for (const size of [16_384, 1]) pieces.add(Buffer.alloc(size));
  pieces.list();
  expect(pieces.heldBytes).toBeLessThan(1.01 * pieces.bytes);
});

test('a body of one piece is that piece', () => {
  const pieces = new BodyPieces();
  const piece = Buffer.from('{}');
  pieces.add(piece);
  expect(pieces.list()).toEqual([piece]);
  expect(pieces.list()[0]).toBe(piece);
  expect(new BodyPieces().list()).toEqual([]);
});
