import { beforeEach, describe, expect, it } from 'vitest';
import { BlockViews } from '../../brain/block-views.ts';
import { newCounters } from '../../brain/counters.ts';
import { decode, encode, packHashes, packTokens, unpackHashes, unpackTokens } from '../../shared/codec.ts';
import { type BlocksMessage, blocksSchema, type BrainMessage, MAX_HASHES_PER_FRAME } from '../../shared/protocol.ts';
import { VirtualClock } from '../helpers/virtual-clock.ts';
import { blocks, FakePeer } from './fixtures.ts';

let clock: VirtualClock;
let views: BlockViews;
let door: FakePeer;
let other: FakePeer;
let peers: FakePeer[];
let asked: string[];
let counters: ReturnType<typeof newCounters>;

beforeEach(() => {
  clock = new VirtualClock();
  counters = newCounters();
  door = new FakePeer('door');
  other = new FakePeer('other');
  peers = [door, other];
  asked = [];
  views = makeViews();
});

function makeViews(max?: number): BlockViews {
  const source = {
    peers: () => peers,
    askDoor: (instance: string, message: BrainMessage) => void asked.push(`${message.t} ${instance}`),
  };
  return new BlockViews(clock, counters, source, max);
}

function apply(message: BlocksMessage): void {
  views.apply('door', message, encode(message));
}

function frames(peer: FakePeer): BlocksMessage[] {
  return peer.frames.map((frame) => blocksSchema.parse(decode(frame, 1e9)));
}

/** The mirror of an agent: what its view is after these frames; throws at a gap. */
function mirror(messages: readonly BlocksMessage[]): { seq: number; hashes: number[] } {
  const hashes = new Set<number>();
  let seq = -1;
  for (const message of messages) {
    if (message.reset) hashes.clear();
    else if (message.seq !== seq + 1) throw new Error(`gap: ${message.seq} after ${seq}`);
    seq = message.seq;
    for (const hash of unpackHashes(message.add)) hashes.add(hash);
    for (const hash of unpackHashes(message.remove)) hashes.delete(hash);
  }
  return { seq, hashes: [...hashes] };
}

function join(): FakePeer {
  const joiner = new FakePeer('joiner');
  views.oweAll(joiner);
  views.payOwed(joiner, () => false);
  peers.push(joiner);
  return joiner;
}

describe('block deltas', () => {
  it('go to the other agents as they came', () => {
    const first = blocks('i', 0, [1, 2], { reset: true });
    const second = blocks('i', 1, [3], { remove: packHashes([1]) });
    apply(first);
    apply(second);
    expect(door.frames).toHaveLength(0);
    expect(other.frames).toEqual([encode(first), encode(second)]);
  });

  it('reach a joiner as a view that the live deltas follow without a gap', () => {
    apply(blocks('i', 7, [1, 2], { reset: true }));
    apply(blocks('i', 8, [3]));
    const joiner = join();
    apply(blocks('i', 9, [4], { remove: packHashes([1]) }));
    expect(mirror(frames(joiner))).toEqual({ seq: 9, hashes: [2, 3, 4] });
  });

  it('reach a joiner with the tokens that were last known of each block, and without what no fingerprint gives', () => {
    apply(blocks('i', 0, [1, 2, 0, 3], { reset: true, tokens: packTokens([17, 0, 5, 50]) }));
    apply(blocks('i', 1, [1, 2], { tokens: packTokens([0, 33]), remove: packHashes([0, NaN]) }));
    const [view] = frames(join());
    expect([...unpackHashes(view!.add)]).toEqual([1, 2, 3]);
    expect([...unpackTokens(view!.tokens)]).toEqual([17, 33, 50]);
  });

  it('are replayed in frames of bounded size whose last has the present sequence number', () => {
    const total = 2 * MAX_HASHES_PER_FRAME + 10;
    const hashes = Array.from({ length: total }, (_, i) => i + 1);
    for (let i = 0; i < 3; i++)
      apply(blocks('i', i, hashes.slice(i * MAX_HASHES_PER_FRAME, (i + 1) * MAX_HASHES_PER_FRAME), { reset: i === 0 }));
    const joiner = join();
    apply(blocks('i', 3, [total + 1]));
    expect(frames(joiner).map(({ seq, reset }) => `${seq} ${reset}`)).toEqual([
      '0 true',
      '1 false',
      '2 false',
      '3 false',
    ]);
    expect(mirror(frames(joiner)).hashes).toHaveLength(total + 1);
  });

  it('that break off are not passed on: the door is asked, once every so often, for the whole view', () => {
    apply(blocks('i', 0, [1], { reset: true }));
    apply(blocks('i', 2, [3]));
    apply(blocks('i', 3, [4]));
    expect(asked).toEqual(['resend-blocks i']);
    expect(other.frames).toHaveLength(1);
    expect(counters.blockGaps).toBe(2);
    clock.advance(2_000);
    apply(blocks('i', 4, [5]));
    expect(asked).toHaveLength(2);
    apply(blocks('i', 5, [1, 3, 4, 5], { reset: true }));
    apply(blocks('i', 5, [9]));
    apply(blocks('i', 6, [6]));
    expect(mirror(frames(other))).toEqual({ seq: 6, hashes: [1, 3, 4, 5, 6] });
  });

  it('of an earlier incarnation end with it, and a view that does not come is asked for', () => {
    apply(blocks('i', 0, [1], { reset: true }));
    views.noteReport('i', 1);
    expect(views.totals()).toEqual({ views: 1, hashes: 1 });
    views.noteReport('i', 2);
    expect(views.totals()).toEqual({ views: 0, hashes: 0 });
    clock.advance(1_000);
    views.noteReport('i', 2);
    expect(asked).toEqual([]);
    clock.advance(1_000);
    views.noteReport('i', 2);
    expect(asked).toEqual(['resend-blocks i']);
  });

  it('are owed to a slow agent and come as a whole view once it reads', () => {
    apply(blocks('i', 0, [1], { reset: true }));
    other.isSlow = true;
    apply(blocks('i', 1, [2]));
    other.isSlow = false;
    apply(blocks('i', 2, [3]));
    expect(other.frames).toHaveLength(1);
    views.payOwed(other, () => false);
    apply(blocks('i', 3, [4]));
    expect(mirror(frames(other))).toEqual({ seq: 3, hashes: [1, 2, 3, 4] });
  });

  it('beyond the bound are passed on but not kept, and the door is asked when somebody joins', () => {
    views = makeViews(10);
    apply(blocks('i', 0, [1, 2, 3], { reset: true }));
    apply(
      blocks(
        'j',
        0,
        Array.from({ length: 20 }, (_, i) => i + 1),
        { reset: true },
      ),
    );
    expect(views.totals()).toEqual({ views: 2, hashes: 3 });
    const joiner = join();
    expect(frames(joiner).map(({ instance }) => instance)).toEqual(['i']);
    expect(asked).toEqual(['resend-blocks j']);
    apply(blocks('j', 1, [99]));
    expect(frames(other).at(-1)?.instance).toBe('j');
  });
});
