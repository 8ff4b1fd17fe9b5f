import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { hash53 } from '../../../../agent/door/kv-events/decode.ts';
import { packageRoot } from '../../../../shared/package-root.ts';
import { cbor, pickle, type ShaAlgorithm, vllmBlockHash, vllmNoneHash } from '../../../helpers/vllm-block-hash.ts';

interface Row {
  seed: string;
  algo: string;
  none: string;
  b0: string;
  b0_u64: string;
  b1: string;
  b1_u64: string;
  b0_salt: string;
}

const rows = readFileSync(join(packageRoot, 'test/fixtures/kv-events/block-hash-vectors.jsonl'), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Row);

const tokens = (from: number): number[] => Array.from({ length: 16 }, (_, at) => from + at);

test('the table has three seeds and four algorithms', () => {
  expect(rows).toHaveLength(12);
});

describe.each(rows)('$algo with seed $seed', (row) => {
  test('a digest, and the integer that vLLM makes of it, are one number', () => {
    for (const [digest, integer] of [
      [row.b0, row.b0_u64],
      [row.b1, row.b1_u64],
    ] as const) {
      const fromInteger = hash53(BigInt(integer));
      expect(hash53(Buffer.from(digest, 'hex'))).toBe(fromInteger);
      expect(Number.isSafeInteger(fromInteger)).toBe(true);
    }
  });
});

describe.each(rows.filter((row) => row.algo.startsWith('sha256')))('recomputed: $algo with seed $seed', (row) => {
  test('first block, the one after it, and the first block with a cache salt', () => {
    const algorithm = row.algo as ShaAlgorithm;
    const none = vllmNoneHash(algorithm, row.seed);
    expect(none.toString('hex')).toBe(row.none);
    const first = vllmBlockHash(algorithm, [none, tokens(1), null]);
    expect(first.toString('hex')).toBe(row.b0);
    expect(vllmBlockHash(algorithm, [first, tokens(17), null]).toString('hex')).toBe(row.b1);
    expect(vllmBlockHash(algorithm, [none, tokens(1), ['salt']]).toString('hex')).toBe(row.b0_salt);
  });
});

test('serialisations are those of Python', () => {
  const key = [Buffer.alloc(32, 1), [1, 2, 300, 70000], null] as const;
  const parent = '01'.repeat(32);
  expect(cbor(key).toString('hex')).toBe(`835820${parent}84010219012c1a00011170f6`);
  expect(pickle(key).toString('hex')).toBe(
    `80059536000000000000004320${parent}94284b014b024d2c014a7011010074944e87942e`,
  );
  expect(cbor('0').toString('hex')).toBe('6130');
});
