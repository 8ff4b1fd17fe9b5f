import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Packr } from 'msgpackr';
import { describe, expect, test } from 'vitest';
import { decodeBatch, hash53 } from '../../../../agent/door/kv-events/decode.ts';
import type { BlocksStored, KvEvent } from '../../../../agent/door/kv-events/kv-event.ts';
import { seededRng } from '../../../../shared/env.ts';
import { LodestarError } from '../../../../shared/errors.ts';
import { packageRoot } from '../../../../shared/package-root.ts';
import { vllmBlockHash, vllmNoneHash } from '../../../helpers/vllm-block-hash.ts';

const packr = new Packr({ useRecords: false, variableMapSize: true, largeBigIntToFloat: false });
const pack = (value: unknown): Uint8Array => packr.pack(value);
const hex = (text: string): Uint8Array => Buffer.from(text, 'hex');

// Written out as in vLLM's field lists (msgspec): one store, its removal, a clearing.
const ARRAYS =
  '93cb3ff8000000000000939dab426c6f636b53746f72656491cfdab89baa7b5857c0c0940102030404c0a3475055c091c000ae66756c6c5f617474656e74696f6ec0c095ac426c6f636b52656d6f766564' +
  '91cfdab89baa7b5857c0a347505500c091b0416c6c426c6f636b73436c656172656400';
const MAPS =
  '93cb3ff8000000000000938ba474797065ab426c6f636b53746f726564ac626c6f636b5f68617368657391cfdab89baa7b5857c0b1706172656e745f626c6f636b5f68617368c0a9746f6b656e5f696473' +
  '9401020304aa626c6f636b5f73697a6504a76c6f72615f6964c0a66d656469756da3475055a96c6f72615f6e616d65c0aa65787472615f6b65797391c0a967726f75705f69647800b26b765f6361636865' +
  '5f737065635f6b696e64ae66756c6c5f617474656e74696f6e84a474797065ac426c6f636b52656d6f766564ac626c6f636b5f68617368657391cfdab89baa7b5857c0a66d656469756da3475055a96772' +
  '6f75705f6964780081a474797065b0416c6c426c6f636b73436c656172656400';

const HASH = Number(15760518052499183552n & (2n ** 53n - 1n));
const STORED: BlocksStored = {
  type: 'stored',
  hashes: [HASH],
  parent: undefined,
  tokenIds: [1, 2, 3, 4],
  blockSize: 4,
  loraName: undefined,
  extraKeys: [null],
  medium: 'GPU',
  group: 0,
  specKind: 'full_attention',
};
const EVENTS: KvEvent[] = [STORED, { type: 'removed', hashes: [HASH], medium: 'GPU', group: 0 }, { type: 'cleared' }];

function codeOf(payload: Uint8Array): string {
  try {
    decodeBatch(payload);
    return 'decoded';
  } catch (error) {
    return error instanceof LodestarError ? error.code : `thrown: ${String(error)}`;
  }
}

describe('shapes of the wire', () => {
  test.each([
    ['arrays', ARRAYS],
    ['maps', MAPS],
  ])('%s', (_name, text) => {
    expect(decodeBatch(hex(text))).toEqual({ dataParallelRank: 0, events: EVENTS, unknown: [] });
  });

  test('a batch may be a map, and an event an array in it', () => {
    const batch = { ts: 1.5, events: [['AllBlocksCleared'], { type: 'AllBlocksCleared' }], data_parallel_rank: 3 };
    expect(decodeBatch(pack(batch))).toEqual({
      dataParallelRank: 3,
      events: [{ type: 'cleared' }, { type: 'cleared' }],
      unknown: [],
    });
  });

  test('of 0.8.5: batch of two, events without a medium', () => {
    const events = [
      ['BlockStored', [-5, 6], 7, [1, 2, 3, 4], 2, null],
      ['BlockRemoved', [6]],
    ];
    expect(decodeBatch(pack([1.5, events]))).toEqual({
      dataParallelRank: undefined,
      unknown: [],
      events: [
        {
          ...STORED,
          hashes: [2 ** 53 - 5, 6],
          parent: 7,
          tokenIds: [1, 2, 3, 4],
          blockSize: 2,
          extraKeys: undefined,
          specKind: undefined,
        },
        { type: 'removed', hashes: [6], medium: 'GPU', group: 0 },
      ],
    });
  });

  test('an adapter by name, and by number where it has no name yet', () => {
    const stored = (lora: object): unknown[] =>
      decodeBatch(pack([1, [{ type: 'BlockStored', block_hashes: [1], token_ids: [1], block_size: 1, ...lora }]]))
        .events;
    expect(stored({ lora_id: 2, lora_name: 'sql' })).toMatchObject([{ loraName: 'sql' }]);
    expect(stored({ lora_id: 2, lora_name: null })).toMatchObject([{ loraName: 'lora_id 2' }]);
    expect(stored({ lora_id: null })).toMatchObject([{ loraName: undefined }]);
  });

  test('further elements and keys are passed over, further tiers kept apart', () => {
    const stored = [
      'BlockStored',
      [1],
      null,
      [1],
      1,
      null,
      'CPU',
      null,
      [['k', 1]],
      2,
      'sliding_window',
      128,
      'LOCAL',
      'owner',
      'new',
    ];
    const batch = decodeBatch(
      pack([
        1,
        [stored, { type: 'BlockRemoved', block_hashes: [1], medium: 'STORAGE', group_idx: 1, brand_new: {} }],
        0,
        'new',
      ]),
    );
    expect(batch.events).toEqual([
      {
        ...STORED,
        hashes: [1],
        tokenIds: [1],
        blockSize: 1,
        medium: 'CPU',
        group: 2,
        specKind: 'sliding_window',
        extraKeys: [['k', 1]],
      },
      { type: 'removed', hashes: [1], medium: 'STORAGE', group: 1 },
    ]);
  });

  test('an unknown type is skipped and named once', () => {
    const batch = decodeBatch(pack([1, [{ type: 'BlockMoved', a: 1 }, ['AllBlocksCleared'], ['BlockMoved', 2]]]));
    expect(batch).toEqual({ dataParallelRank: undefined, events: [{ type: 'cleared' }], unknown: ['BlockMoved'] });
  });
});

describe('hashes', () => {
  test('integers of 64 bits, negative ones and digests of any length come to 53 bits', () => {
    expect(hash53(2n ** 64n - 1n)).toBe(2 ** 53 - 1);
    expect(hash53(-1)).toBe(2 ** 53 - 1);
    expect(hash53(-(2n ** 63n))).toBe(0);
    expect(hash53(12)).toBe(12);
    expect(hash53(Buffer.concat([Buffer.alloc(24, 7), hex('dab89baa7b5857c0')]))).toBe(HASH);
    expect(hash53(hex('dab89baa7b5857c0'))).toBe(HASH);
  });

  test.each([
    ['too few bytes', Buffer.alloc(7)],
    ['text', 'abc'],
    ['a fraction', 1.5],
    ['a number that has lost digits', 2 ** 60],
    ['nothing', null],
  ])('%s is none', (_name, value) => {
    expect(hash53(value)).toBeUndefined();
  });
});

describe('what is not a batch', () => {
  const stored = (change: object): unknown => [
    1,
    [{ type: 'BlockStored', block_hashes: [1], token_ids: [1], block_size: 1, ...change }],
  ];
  test.each<[string, unknown, string]>([
    ['text', 'hello', 'the batch'],
    ['no events', [1.5], 'events of the batch'],
    ['events that are none', [1.5, [7]], 'an event'],
    ['an event without a type', [1.5, [{}]], 'type of an event'],
    ['a rank below zero', [1.5, [], -1], 'data_parallel_rank'],
    ['hashes that are none', stored({ block_hashes: ['x'] }), 'block_hashes'],
    ['a parent that is none', stored({ parent_block_hash: 'x' }), 'parent_block_hash'],
    ['tokens that are none', stored({ token_ids: [1.5] }), 'token_ids'],
    ['blocks of no token', stored({ block_size: 0 }), 'block_size'],
    ['a medium that is none', stored({ medium: 1 }), 'medium'],
    ['further keys that are none', stored({ extra_keys: [1] }), 'extra_keys'],
    ['a group that is none', stored({ group_idx: 'a' }), 'group_idx'],
  ])('%s: the error names the field', (_name, value, field) => {
    expect(() => decodeBatch(pack(value))).toThrow(field);
    expect(codeOf(pack(value))).toBe('WIRE_MALFORMED');
  });

  test('cut, lengthened and altered payloads give an error by code, or events that are whole', () => {
    const rng = seededRng(11);
    const originals = [hex(ARRAYS), hex(MAPS), ...recorded().slice(0, 4)];
    const seen = new Set<string>();
    for (let round = 0; round < 20_000; round++) {
      const bytes = Buffer.from(originals[round % originals.length]!);
      for (let n = Math.floor(rng() * 4); n >= 0; n--)
        bytes[Math.floor(rng() * bytes.length)] = Math.floor(rng() * 256);
      const kind = rng();
      const payload =
        kind < 0.3
          ? bytes.subarray(0, Math.floor(rng() * bytes.length))
          : kind < 0.4
            ? Buffer.concat([bytes, Buffer.of(Math.floor(rng() * 256))])
            : bytes;
      const code = codeOf(payload);
      seen.add(code);
      if (code === 'decoded') checkWhole(decodeBatch(payload).events);
    }
    expect([...seen].toSorted()).toEqual(['WIRE_MALFORMED', 'decoded']);
    expect(decodeBatch(hex(MAPS)).events).toEqual(EVENTS);
  });

  test('lengths and depths that are claimed only cost nothing', () => {
    expect(codeOf(hex('93cb3ff8000000000000ddffffffff'))).toBe('WIRE_MALFORMED');
    expect(codeOf(Buffer.alloc(1_000_000, 0x91))).toBe('WIRE_MALFORMED');
    expect(decodeBatch(hex(MAPS)).events).toEqual(EVENTS);
  });
});

function checkWhole(events: readonly KvEvent[]): void {
  for (const event of events) {
    if (event.type === 'cleared') continue;
    if (!event.hashes.every((hash) => Number.isSafeInteger(hash) && hash >= 0)) throw new Error('a hash is not whole');
    if (event.type === 'stored' && !(event.blockSize > 0 && event.tokenIds.every(Number.isInteger)))
      throw new Error('a store is not whole');
  }
}

interface Recording {
  live: { what: string; frames: [string, string, string] }[];
}

function fixture<T>(name: string): T {
  return JSON.parse(readFileSync(join(packageRoot, 'test/fixtures/kv-events', name), 'utf8')) as T;
}

function recorded(): Uint8Array[] {
  return fixture<Recording>('vllm-0.29.json').live.map(({ frames }) => hex(frames[2]));
}

describe('recorded from vLLM 0.29', () => {
  test('hashes are those of the tokens, chained from the seed', () => {
    const batches = recorded().map(decodeBatch);
    let blocks = 0;
    const digests = new Map<number, Buffer>();
    for (const event of batches.flatMap((batch) => batch.events)) {
      if (event.type !== 'stored') continue;
      let parent = event.parent === undefined ? vllmNoneHash('sha256_cbor', '0') : digests.get(event.parent)!;
      expect(event.tokenIds).toHaveLength(event.hashes.length * event.blockSize);
      event.hashes.forEach((hash, at) => {
        const tokens = event.tokenIds.slice(at * event.blockSize, (at + 1) * event.blockSize);
        parent = vllmBlockHash('sha256_cbor', [
          parent,
          tokens,
          (event.extraKeys?.[at] as string[] | null | undefined) ?? null,
        ]);
        expect(hash53(parent)).toBe(hash);
        digests.set(hash, parent);
        blocks++;
      });
    }
    expect(blocks).toBeGreaterThan(200);
  });

  test('stores, a block stored twice, a salt, evictions before the stores of the same step, and a clearing that comes late', () => {
    const batches = recorded().map(decodeBatch);
    expect(batches.map((batch) => batch.dataParallelRank)).toEqual(batches.map(() => 0));
    expect(batches[0]!.events).toMatchObject([
      { type: 'stored', parent: undefined, blockSize: 16, medium: 'GPU', group: 0, specKind: 'full_attention' },
    ]);
    const first = batches[0]!.events[0] as BlocksStored;
    expect(batches[2]!.events).toMatchObject([{ type: 'stored', hashes: [first.hashes[3]], parent: first.hashes[2] }]);
    expect(batches[3]!.events).toMatchObject([{ extraKeys: [['s'], null] }]);
    const kinds = batches[5]!.events.map((event) => event.type);
    expect(kinds.filter((kind) => kind === 'removed').length).toBeGreaterThan(10);
    expect(kinds.lastIndexOf('removed')).toBeLessThan(kinds.indexOf('stored'));
    expect(batches[6]!.events.map((event) => event.type)).toEqual(['cleared', 'stored']);
  });

  test('two data-parallel ranks with digests', () => {
    const { rank0, rank1 } =
      fixture<Record<'rank0' | 'rank1', [string, string, string][]>>('vllm-0.29-dp2-digests.json');
    for (const [rank, frames] of [rank0, rank1].entries()) {
      for (const [, , payload] of frames) {
        const batch = decodeBatch(hex(payload));
        expect(batch.dataParallelRank).toBe(rank);
        checkWhole(batch.events);
      }
    }
    const stored = decodeBatch(hex(rank0[0]![2])).events[0] as BlocksStored;
    const first = vllmBlockHash('sha256_cbor', [vllmNoneHash('sha256_cbor', '0'), stored.tokenIds.slice(0, 16), null]);
    expect(stored.hashes[0]).toBe(hash53(first));
  });
});
