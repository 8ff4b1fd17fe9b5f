import { describe, expect, test } from 'vitest';
import { decode, encode, packHashes, packTokens, unpackHashes } from '../../shared/codec.ts';
import { type Rng, seededRng } from '../../shared/env.ts';
import { LodestarError } from '../../shared/errors.ts';
import {
  type AgentMessage,
  type BrainMessage,
  MAX_FRAME_BYTES,
  MAX_HASHES_PER_FRAME,
  parseAgentMessage,
  parseBrainMessage,
  PROTOCOL_VERSION,
} from '../../shared/protocol.ts';
import type { InstanceReport } from '../../shared/instance.ts';
import { GENERIC_LAW } from '../../shared/predictor/step-law.ts';
import { NAME_BOUNDS } from '../../shared/report.ts';
import { sealTable } from '../../shared/table.ts';
import { below, pick } from '../helpers/random.ts';
import { reportOf } from '../helpers/reports.ts';
import { sampleOf } from '../helpers/samples.ts';
import { tableOf } from '../helpers/tables.ts';

const TABLE = sealTable(tableOf());
const AGENT: AgentMessage[] = [
  {
    t: 'hello',
    protocol: PROTOCOL_VERSION,
    protocolOldest: 1,
    featureSchema: 1,
    agent: 'a',
    epoch: 1_700_000_000_000,
    credential: 'c'.repeat(32),
    version: '0.1.0',
    doorUrl: 'http://127.0.0.1:1',
    capabilities: [],
  },
  { t: 'telemetry', seq: 3, reports: [reportOf('i', { seen: [{ entry: 'e', epoch: 5, upTo: -1, later: 7 }] })] },
  {
    t: 'samples',
    batch: 1,
    dropped: 0,
    samples: [
      sampleOf(),
      sampleOf(
        { stream: false },
        { status: 'failed', ttftMs: null, tpotMs: null, promptTokens: null, cachedTokens: null },
      ),
    ],
  },
  {
    t: 'blocks',
    instance: 'i',
    incarnation: 1,
    seq: 0,
    reset: true,
    add: packHashes([1, 2 ** 52 + 1]),
    remove: packHashes([]),
    tokens: packTokens([16, 0]),
  },
  { t: 'resync', blocks: ['i'] },
];
const BRAIN: BrainMessage[] = [
  { t: 'welcome', protocol: 1, brainEpoch: 1, salt: 'a'.repeat(64), table: TABLE },
  { t: 'refuse', code: 'credential', reason: 'no' },
  { t: 'table', table: TABLE },
  { t: 'state', seq: 1, full: true, part: 0, parts: 1, reports: [reportOf('i')], gone: ['j'] },
  { t: 'ack', batch: 4 },
  { t: 'resend-blocks', instance: 'i' },
];

function receive(parse: (raw: unknown) => unknown, frame: Uint8Array): unknown {
  try {
    return parse(decode(frame, MAX_FRAME_BYTES));
  } catch (error) {
    return error instanceof LodestarError ? error.code : error;
  }
}

describe.each([
  ['agent', AGENT, parseAgentMessage],
  ['brain', BRAIN, parseBrainMessage],
] as const)('messages of the %s', (_side, messages, parse) => {
  test.each(messages.map((message) => [message.t, message] as const))('%s arrives as it was sent', (_t, message) => {
    expect(encode(receive(parse, encode(message)))).toEqual(encode(message));
  });

  test('mutated, cut and extended frames are refused by code or are valid messages; nothing else is thrown', () => {
    const rng = seededRng(9);
    const frames = messages.map((message) => encode(message));
    const codes = new Set<unknown>();
    for (let round = 0; round < 4000; round++) {
      const outcome = receive(parse, mutate(rng, pick(rng, frames)));
      if (typeof outcome === 'object') expect(outcome).toHaveProperty('t');
      else codes.add(outcome);
    }
    expect([...codes]).toEqual(['WIRE_MALFORMED']);
  });

  test('random bytes', () => {
    const rng = seededRng(10);
    for (let round = 0; round < 4000; round++) {
      expect(receive(parse, Buffer.from(Array.from({ length: below(rng, 60) }, () => below(rng, 256))))).toBe(
        'WIRE_MALFORMED',
      );
    }
  });

  test('frames over the limit, and those that announce more than they hold', () => {
    expect(receive(parse, Buffer.alloc(MAX_FRAME_BYTES + 1))).toBe('WIRE_TOO_LARGE');
    for (const bomb of [
      [0xdd, 0xff, 0xff, 0xff, 0xff],
      [0xdf, 0xff, 0xff, 0xff, 0xff],
      [0xc6, 0xff, 0xff, 0xff, 0xff],
      [0xdb, 0x7f, 0xff, 0xff, 0xff],
    ]) {
      expect(receive(parse, Buffer.from(bomb))).toBe('WIRE_MALFORMED');
    }
    expect(receive(parse, Buffer.alloc(200_000, 0x91))).toBe('WIRE_MALFORMED');
  });
});

function mutate(rng: Rng, frame: Buffer): Buffer {
  const out = Buffer.from(frame);
  const what = rng();
  if (what < 0.15) return out.subarray(0, below(rng, out.length));
  if (what < 0.25) return Buffer.concat([out, Buffer.from([below(rng, 256)])]);
  for (let k = 0; k <= below(rng, 4); k++) out[below(rng, Math.min(out.length, 400))] = below(rng, 256);
  return out;
}

describe('limits of single fields', () => {
  test.each<[string, unknown]>([
    [
      'a row of another length',
      { t: 'samples', batch: 0, dropped: 0, samples: [{ ...sampleOf(), row: new Uint8Array(4) }] },
    ],
    ['a prediction of zero', { t: 'samples', batch: 0, dropped: 0, samples: [{ ...sampleOf(), priorTtftMs: 0 }] }],
    [
      'hashes that are no whole doubles',
      {
        t: 'blocks',
        instance: 'i',
        incarnation: 1,
        seq: 0,
        reset: false,
        add: new Uint8Array(7),
        remove: new Uint8Array(),
      },
    ],
    [
      'too many hashes',
      {
        t: 'blocks',
        instance: 'i',
        incarnation: 1,
        seq: 0,
        reset: false,
        add: new Uint8Array(8 * (MAX_HASHES_PER_FRAME + 1)),
        remove: new Uint8Array(),
      },
    ],
  ])('%s', (_name, message) => {
    expect(receive(parseAgentMessage, encode(message))).toBe('WIRE_MALFORMED');
  });

  test('unknown fields of a later version are dropped', () => {
    expect(receive(parseAgentMessage, encode({ t: 'resync', blocks: [], news: 1 }))).toEqual({
      t: 'resync',
      blocks: [],
    });
  });
});

describe('reports that do not fit', () => {
  const report = reportOf('i');
  const good = reportOf('good');
  /** What is left of a telemetry message with one report beside a good one, and what is said of it. */
  function read(odd: unknown): { reports: unknown[]; problems: string[] } {
    const problems: string[] = [];
    const message = parseAgentMessage(
      decode(encode({ t: 'telemetry', seq: 0, reports: [odd, good] }), MAX_FRAME_BYTES),
      ({ problem }) => problems.push(problem),
    );
    return { reports: message.t === 'telemetry' ? message.reports : [], problems };
  }

  test.each<[string, unknown, string]>([
    ['NaN in a ledger', { ...report, ledger: { ...report.ledger, usedTokens: Number.NaN } }, 'ledger.usedTokens'],
    [
      'a number that overflows sums',
      { ...report, ledger: { ...report.ledger, usedTokens: 1e300 } },
      'ledger.usedTokens',
    ],
    ['an empty id', { ...report, instance: '' }, 'instance'],
    ['a door that is no HTTP peer', { ...report, doorUrl: 'ftp://host/' }, 'doorUrl'],
    ['a door with a path', { ...report, doorUrl: 'http://host/v1' }, 'doorUrl'],
    ['a door that is no URL', { ...report, doorUrl: 'host' }, 'doorUrl'],
    ['no report at all', 7, 'the report'],
    ['nothing', null, 'the report'],
  ])('%s costs that report only', (_name, odd, problem) => {
    const { reports, problems } = read(odd);
    expect(reports).toEqual([good]);
    expect(problems).toEqual([expect.stringContaining(problem)]);
  });

  test.each<[string, Record<string, unknown>, Partial<InstanceReport>]>([
    ['a negative gauge', { engine: { running: 1, waiting: 0, kvUsageRatio: -0.39, ageMs: 1 } }, { engine: null }],
    [
      'a temperature that is no number',
      { gpu: { utilRatio: 1, memUsedRatio: 1, smClockRatio: 1, powerRatio: 1, temperatureC: Number.NaN, ageMs: 0 } },
      { gpu: null },
    ],
    ['a host load above any', { host: { cpuRatio: 1e6, memUsedRatio: 0 } }, { host: null }],
    ['a hit ratio of infinity', { cache: { ...report.cache, hitRatio: Infinity } }, { cache: null }],
    ['a law of NaN', { law: { ...report.law, c0: Number.NaN } }, { law: GENERIC_LAW }],
    ['a long kind', { kind: 'k'.repeat(5000) }, { kind: '?' }],
    ['a name beyond the bound', { models: ['m', 'x'.repeat(5000), 'n'] }, { models: ['m', 'n'] }],
    ['names that are no texts', { models: ['m', 7, null] }, { models: ['m'] }],
    [
      'very many names',
      { models: Array.from({ length: 20_000 }, (_, i) => `lora-${i}`) },
      { models: Array.from({ length: NAME_BOUNDS.names }, (_, i) => `lora-${i}`) },
    ],
    [
      'names of many characters',
      { models: Array.from({ length: 2000 }, () => 'x'.repeat(512)) },
      { models: Array.from({ length: NAME_BOUNDS.chars / 512 }, () => 'x'.repeat(512)) },
    ],
    [
      'one entry with a negative count',
      {
        seen: [
          { entry: 'e', epoch: 1, upTo: 3, later: 0 },
          { entry: 'f', epoch: -1, upTo: 3, later: 0 },
        ],
      },
      { seen: [{ entry: 'e', epoch: 1, upTo: 3, later: 0 }] },
    ],
  ])('%s costs that field only', (_name, odd, left) => {
    const { reports, problems } = read({ ...report, ...odd });
    expect(reports).toEqual([{ ...report, ...left }, good]);
    expect(problems[0]).toMatch(new RegExp(`^${Object.keys(odd)[0]}`));
  });

  test('the brain sends them no otherwise', () => {
    const message = parseBrainMessage({
      t: 'state',
      seq: 1,
      full: true,
      reports: [{ ...report, doorUrl: 'x' }, good],
      gone: [],
    });
    expect(message).toMatchObject({ reports: [good], part: 0, parts: 1 });
  });
});

test('hashes survive packing, aligned or not', () => {
  const hashes = [1, 2 ** 32, 2 ** 53 - 1];
  const packed = packHashes(hashes);
  expect([...unpackHashes(packed)]).toEqual(hashes);
  const shifted = new Uint8Array(packed.length + 1);
  shifted.set(packed, 1);
  expect([...unpackHashes(shifted.subarray(1))]).toEqual(hashes);
});
