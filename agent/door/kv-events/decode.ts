import { Unpackr } from 'msgpackr';
import { errorMessage, LodestarError } from '../../../shared/errors.ts';
import type { BlocksRemoved, BlocksStored, KvEvent } from './kv-event.ts';

/** One message of vLLM's event stream: what one scheduler step did to the cache. */
export interface KvEventBatch {
  /** as the publisher says it; undefined where it does not (before vLLM 0.9.1) */
  dataParallelRank: number | undefined;
  events: KvEvent[];
  /** names of event types that are not known here and were skipped, each once */
  unknown: string[];
}

type Fields = { readonly [name: string]: unknown };
type RawEvent = readonly unknown[] | Fields;

const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true, int64AsType: 'bigint' });

const HASH_BITS = 53;
const HIGH_MASK = 2 ** (HASH_BITS - 32) - 1;
const LOW = 2 ** 32;
const MAX_BLOCK_SIZE = 1_048_576;
/** Texts such as a medium or a type's name come to stay in tables and logs, so they have a length. */
const MAX_TEXT = 128;
const MAX_UNKNOWN = 16;

/**
 * Decodes the payload of one message (MessagePack; field lists in vllm/distributed/kv_events.py). A batch and an event
 * are an array or a map by what they are on the wire, whatever the version: fields that are missing at the end have
 * their defaults, further elements and keys are passed over, so are events of a type unknown here. Checked by hand, not
 * by zod: this runs for each of 50,000 events a second. Error: WIRE_MALFORMED, which names the field.
 */
export function decodeBatch(payload: Uint8Array): KvEventBatch {
  const raw = unpack(payload);
  const isArray = Array.isArray(raw);
  if (!isArray && !isMap(raw)) throw malformed('the batch', raw, 'an array or a map');
  const events = isArray ? (raw as unknown[])[1] : (raw as Fields)['events'];
  const rank = isArray ? (raw as unknown[])[2] : (raw as Fields)['data_parallel_rank'];
  if (!Array.isArray(events)) throw malformed('events of the batch', events, 'an array');
  const batch: KvEventBatch = {
    dataParallelRank: rank === null || rank === undefined ? undefined : count(rank, 'data_parallel_rank of the batch'),
    events: [],
    unknown: [],
  };
  for (const event of events as unknown[]) addEvent(batch, event);
  return batch;
}

/**
 * A block's hash as an opaque number: the low 53 bits of an integer (two's complement where it is negative), or of the
 * last 64 bits of a digest read big-endian, which is what vLLM makes the integer of. undefined for what is neither.
 */
export function hash53(value: unknown): number | undefined {
  if (typeof value === 'bigint') return Number(BigInt.asUintN(HASH_BITS, value));
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value)) return undefined;
    return value >= 0 ? value : Number(BigInt.asUintN(HASH_BITS, BigInt(value)));
  }
  if (!(value instanceof Uint8Array) || value.length < 8) return undefined;
  const at = value.length - 8;
  const high = ((value[at + 1]! << 16) | (value[at + 2]! << 8) | value[at + 3]!) & HIGH_MASK;
  const low = ((value[at + 4]! << 24) | (value[at + 5]! << 16) | (value[at + 6]! << 8) | value[at + 7]!) >>> 0;
  return high * LOW + low;
}

function unpack(payload: Uint8Array): unknown {
  try {
    return unpackr.unpack(payload);
  } catch (error) {
    throw new LodestarError('WIRE_MALFORMED', `KV events: the payload is not MessagePack: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

function addEvent(batch: KvEventBatch, raw: unknown): void {
  if (!Array.isArray(raw) && !isMap(raw)) throw malformed('an event', raw, 'an array or a map');
  const event = raw as RawEvent;
  const type = field(event, 0, 'type');
  if (type === 'BlockStored') batch.events.push(stored(event));
  else if (type === 'BlockRemoved') batch.events.push(removed(event));
  else if (type === 'AllBlocksCleared') batch.events.push({ type: 'cleared' });
  else if (typeof type !== 'string') throw malformed('type of an event', type, 'text');
  else {
    const name = type.slice(0, MAX_TEXT);
    if (batch.unknown.length < MAX_UNKNOWN && !batch.unknown.includes(name)) batch.unknown.push(name);
  }
}

function stored(event: RawEvent): BlocksStored {
  const parent = field(event, 2, 'parent_block_hash');
  return {
    type: 'stored',
    hashes: hashes(field(event, 1, 'block_hashes')),
    parent: parent === null || parent === undefined ? undefined : hash(parent, 'parent_block_hash'),
    tokenIds: tokenIds(field(event, 3, 'token_ids')),
    blockSize: blockSize(field(event, 4, 'block_size')),
    loraName: loraName(field(event, 7, 'lora_name'), field(event, 5, 'lora_id')),
    extraKeys: extraKeys(field(event, 8, 'extra_keys')),
    medium: text(field(event, 6, 'medium'), 'medium') ?? 'GPU',
    group: group(field(event, 9, 'group_idx')),
    specKind: text(field(event, 10, 'kv_cache_spec_kind'), 'kv_cache_spec_kind'),
  };
}

function removed(event: RawEvent): BlocksRemoved {
  return {
    type: 'removed',
    hashes: hashes(field(event, 1, 'block_hashes')),
    medium: text(field(event, 2, 'medium'), 'medium') ?? 'GPU',
    group: group(field(event, 3, 'group_idx')),
  };
}

function field(event: RawEvent, index: number, name: string): unknown {
  return Array.isArray(event) ? event[index] : (event as Fields)[name];
}

function hashes(value: unknown): number[] {
  if (!Array.isArray(value)) throw malformed('block_hashes', value, 'an array');
  return (value as unknown[]).map((one) => hash(one, 'block_hashes'));
}

function hash(value: unknown, name: string): number {
  const number = hash53(value);
  if (number === undefined) throw malformed(name, value, 'an integer or a digest');
  return number;
}

function tokenIds(value: unknown): number[] {
  if (!Array.isArray(value)) throw malformed('token_ids', value, 'an array');
  for (const token of value) if (!Number.isInteger(token)) throw malformed('token_ids', token, 'a whole number');
  return value as number[];
}

function blockSize(value: unknown): number {
  const size = count(value, 'block_size');
  if (size < 1 || size > MAX_BLOCK_SIZE) throw malformed('block_size', value, `from 1 to ${MAX_BLOCK_SIZE}`);
  return size;
}

/**
 * Before vLLM 0.14 only the number of an adapter is told: it then stands for the name, so that its blocks are not taken
 * for those of the base model.
 */
function loraName(name: unknown, id: unknown): string | undefined {
  const told = text(name, 'lora_name');
  if (told !== undefined || id === null || id === undefined) return told;
  return `lora_id ${count(id, 'lora_id')}`;
}

function extraKeys(value: unknown): (readonly unknown[] | null)[] | undefined {
  if (value === null || value === undefined) return undefined;
  if (!Array.isArray(value)) throw malformed('extra_keys', value, 'an array');
  for (const keys of value)
    if (keys !== null && !Array.isArray(keys))
      throw malformed('extra_keys', keys, 'an array or nothing for each block');
  return value as (readonly unknown[] | null)[];
}

function group(value: unknown): number {
  return value === null || value === undefined ? 0 : count(value, 'group_idx');
}

function text(value: unknown, name: string): string | undefined {
  if (value === null || value === undefined) return undefined;
  if (typeof value !== 'string' || value.length > MAX_TEXT)
    throw malformed(name, value, `text of at most ${MAX_TEXT} characters`);
  return value;
}

function count(value: unknown, name: string): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw malformed(name, value, 'a whole number from 0');
  return value as number;
}

function isMap(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}

function malformed(name: string, value: unknown, wanted: string): LodestarError {
  return new LodestarError('WIRE_MALFORMED', `KV events: ${name} holds ${describe(value)} where vLLM has ${wanted}`);
}

function describe(value: unknown): string {
  if (value === null || value === undefined) return 'nothing';
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === 'object') return 'a map';
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 32)) : `${String(value)} (${typeof value})`;
}
