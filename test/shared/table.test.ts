import { describe, expect, test } from 'vitest';
import { encode } from '../../shared/codec.ts';
import { seededRng } from '../../shared/env.ts';
import { LodestarError } from '../../shared/errors.ts';
import { openTable, packNet, type SealedTable, sealTable, tableNet } from '../../shared/table.ts';
import { createHash } from 'node:crypto';
import { randomNet, tableOf } from '../helpers/tables.ts';

function codeOf(sealed: SealedTable): unknown {
  try {
    openTable(sealed);
    return 'opened';
  } catch (error) {
    return error instanceof LodestarError ? error.code : error;
  }
}

/** Seals anything, with the right checksum. */
function sealRaw(body: Uint8Array): SealedTable {
  return { body, checksum: createHash('sha256').update(body).digest('hex') };
}

const TABLE = tableOf({
  net: packNet(randomNet(seededRng(1), [8])),
  roster: [{ instance: 'a', agent: 'x', doorUrl: 'http://127.0.0.1:9', models: ['m'], kind: 'k' }],
});

test('what was sealed is opened, net included', () => {
  const opened = openTable(sealTable(TABLE));
  expect(encode(opened)).toEqual(encode(TABLE));
  expect(tableNet(opened)).toEqual(randomNet(seededRng(1), [8]));
  expect(tableNet(tableOf())).toBeNull();
});

test('one wrong byte anywhere is TABLE_CORRUPT', () => {
  const sealed = sealTable(TABLE);
  for (let at = 0; at < sealed.body.length; at += 3) {
    const body = Uint8Array.from(sealed.body);
    body[at] = (body[at] as number) ^ (1 << (at % 8));
    expect(codeOf({ ...sealed, body })).toBe('TABLE_CORRUPT');
  }
  for (let at = 0; at < 64; at++) {
    const checksum =
      sealed.checksum.slice(0, at) + (sealed.checksum[at] === '0' ? '1' : '0') + sealed.checksum.slice(at + 1);
    expect(codeOf({ ...sealed, checksum })).toBe('TABLE_CORRUPT');
  }
});

test('a body of nonsense with the right checksum is TABLE_CORRUPT too', () => {
  const body = sealTable(TABLE).body;
  const rng = seededRng(2);
  for (let round = 0; round < 500; round++) {
    const bad = Uint8Array.from(body);
    for (let k = 0; k < 3; k++) bad[Math.floor(rng() * 200)] = Math.floor(rng() * 256);
    expect(['TABLE_CORRUPT', 'opened']).toContain(codeOf(sealRaw(bad)));
  }
  for (const raw of [
    Buffer.alloc(0),
    Buffer.from([0xc1]),
    body.subarray(0, 50),
    Buffer.alloc(9 << 20),
    encode(null),
    encode([]),
    encode('x'),
  ])
    expect(codeOf(sealRaw(raw))).toBe('TABLE_CORRUPT');
});

test('an instance that does not fit is left out of the roster, and said', () => {
  const entry = { instance: 'a', agent: 'x', doorUrl: 'http://127.0.0.1:9', models: ['m'], kind: 'k' };
  const roster = [
    { ...entry, instance: 'b', doorUrl: 'ftp://host' },
    entry,
    { ...entry, instance: 'c', doorUrl: 'nowhere' },
  ];
  const problems: unknown[] = [];
  expect(openTable(sealTable({ ...TABLE, roster }), (fault) => problems.push(fault.instance)).roster).toEqual([entry]);
  expect(problems).toEqual(['b', 'c']);
});

describe('shape', () => {
  const net = packNet(randomNet(seededRng(3), [8]));
  test.each([
    ['another feature schema', { featureSchema: 999 }],
    ['an unknown policy', { policy: 'best' }],
    ['exploration above 1', { exploration: 1.5 }],
    ['a negative coefficient', { laws: { fleet: { ...TABLE.laws.fleet, c0: -1 }, kinds: {} } }],
    ['NaN', { atWallMs: Number.NaN }],
    ['a net whose layers do not fit', { net: { ...net, layers: [net.layers[0], net.layers[0]] } }],
    [
      'a net with too few weights',
      { net: { ...net, layers: [{ ...net.layers[0], weights: new Uint8Array(4) }, net.layers[1]] } },
    ],
    ['a net without layers', { net: { ...net, layers: [] } }],
  ])('refused: %s', (_name, changes) => {
    expect(codeOf(sealRaw(encode({ ...TABLE, ...changes })))).toBe('TABLE_CORRUPT');
  });
});
