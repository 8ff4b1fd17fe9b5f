import { beforeEach, describe, expect, it } from 'vitest';
import { newCounters } from '../../brain/counters.ts';
import { BATCH_MS, FanOut } from '../../brain/fan-out.ts';
import { Registry } from '../../brain/registry.ts';
import { decode, encode } from '../../shared/codec.ts';
import { silentLog } from '../../shared/env.ts';
import type { BrainMessage } from '../../shared/protocol.ts';
import { VirtualClock } from '../helpers/virtual-clock.ts';
import { FakePeer, report } from './fixtures.ts';

type State = Extract<BrainMessage, { t: 'state' }>;

let clock: VirtualClock;
let registry: Registry;
let fanOut: FanOut;
let peers: FakePeer[];
let rosterChanges: number;
const counters = newCounters();

beforeEach(() => {
  clock = new VirtualClock();
  rosterChanges = 0;
  peers = [new FakePeer('a'), new FakePeer('b')];
  registry = new Registry(clock, silentLog, counters, {
    changed: (instance) => fanOut.instanceChanged(instance),
    gone: (instance) => fanOut.instanceGone(instance),
    rosterChanged: () => (rosterChanges += 1),
  });
  fanOut = new FanOut(clock, {
    report: (instance) => registry.report(instance),
    reports: () => registry.reports(),
    broadcast(message, owe) {
      for (const peer of peers)
        if (peer.slow()) owe(peer);
        else peer.send(encode(message));
    },
  });
});

function states(peer: FakePeer): State[] {
  return peer.frames.map((frame) => decode(frame, 1e9) as State);
}

describe('state', () => {
  it('reaches every agent at once after a pause, then in batches, aged by the time it was held', () => {
    registry.update('a', 1, [report('h', 'a')]);
    clock.advance(0);
    for (const peer of peers)
      expect(states(peer)).toMatchObject([
        { t: 'state', seq: 1, full: false, gone: [], reports: [{ instance: 'h', ageMs: 0 }] },
      ]);
    clock.advance(5);
    registry.update('a', 1, [report('i', 'a', { ageMs: 3 })]);
    clock.advance(5);
    registry.update('b', 1, [report('j', 'b')]);
    clock.advance(BATCH_MS - 10);
    for (const peer of peers) {
      expect(states(peer).slice(1)).toMatchObject([
        {
          t: 'state',
          seq: 2,
          full: false,
          gone: [],
          reports: [
            { instance: 'i', ageMs: 3 + BATCH_MS - 5 },
            { instance: 'j', ageMs: BATCH_MS - 10 },
          ],
        },
      ]);
    }
  });

  it('goes whole to one that joins, so that the next batch follows without a gap', () => {
    registry.update('a', 1, [report('i', 'a')]);
    clock.advance(50);
    registry.update('a', 1, [report('i', 'a', { seq: 2, health: 'down' })]);
    const late = new FakePeer('c');
    fanOut.sendAll(late);
    peers.push(late);
    clock.advance(50);
    expect(states(late)).toMatchObject([
      { full: true, seq: 1, reports: [{ health: 'down' }] },
      { full: false, seq: 2 },
    ]);
  });

  it('is owed to a slow agent', () => {
    (peers[1] as FakePeer).isSlow = true;
    registry.update('a', 1, [report('i', 'a')]);
    clock.advance(50);
    expect(peers.map((peer) => [peer.frames.length, peer.owed.state])).toEqual([
      [1, false],
      [0, true],
    ]);
  });

  it('ignores a report that is not newer, but believes an agent that has started anew', () => {
    registry.update('a', 1, [report('i', 'a', { incarnation: 2, seq: 5 })]);
    registry.update('a', 1, [
      report('i', 'a', { incarnation: 2, seq: 5, health: 'down' }),
      report('i', 'a', { incarnation: 1, seq: 9, health: 'down' }),
    ]);
    expect(registry.report('i')?.health).toBe('up');
    expect(registry.fromEarlierBoot('a', 2)).toEqual(['i']);
    registry.update('a', 2, [report('i', 'a', { incarnation: 1, seq: 0, health: 'starting' })]);
    expect(registry.report('i')?.health).toBe('starting');
    expect(registry.fromEarlierBoot('a', 2)).toEqual([]);
  });
});

describe('who is in the fleet', () => {
  it('refuses an instance that another agent holds, or that is reported in the name of another agent', () => {
    registry.update('a', 1, [report('i', 'a')]);
    registry.update('b', 1, [report('i', 'b', { seq: 99 }), report('k', 'a')]);
    expect(registry.roster().map(({ instance, agent }) => `${instance} ${agent}`)).toEqual(['i a']);
    expect(counters.claimsRefused).toBe(2);
  });

  it('keeps a silent instance for 30 s, ageing; then it is gone and its id is free', () => {
    registry.update('a', 1, [report('i', 'a')]);
    clock.advance(29_000);
    registry.expire();
    expect(registry.report('i')?.ageMs).toBe(29_000);
    clock.advance(1_000);
    registry.expire();
    clock.advance(50);
    expect(states(peers[0] as FakePeer).at(-1)).toMatchObject({ gone: ['i'], reports: [] });
    registry.update('b', 1, [report('i', 'b')]);
    expect(registry.holder('i')).toBe('b');
  });

  it('changes the roster with place, models and kind, not with load', () => {
    registry.update('a', 1, [report('i', 'a')]);
    registry.update('a', 1, [report('i', 'a', { seq: 2, health: 'down' })]);
    expect(rosterChanges).toBe(1);
    registry.update('a', 1, [report('i', 'a', { seq: 3, models: ['m', 'lora'] })]);
    expect(rosterChanges).toBe(2);
  });
});
