import { describe, expect, test } from 'vitest';
import type { Batch } from '../../../../agent/door/kv-events/batches.ts';
import { KvHistory } from '../../../../agent/door/kv-events/history.ts';
import type { BlocksRemoved, KvEvent } from '../../../../agent/door/kv-events/kv-event.ts';
import { type Rng, seededRng } from '../../../../shared/env.ts';

/** The stream of one engine after another, as the test lets it through. */
class World {
  /** what the sink has, and whether it is said to be all */
  view: number[] = [];
  isComplete = false;
  failures = 0;
  canReplay = true;
  bufferSteps = 1000;
  engine = 1;
  /** every batch of the engine now there */
  published: Batch[] = [];
  readonly channel: Batch[] = [];
  /** start of the question that waits for its answer */
  asked: number | undefined;
  readonly history = new KvHistory({
    sink: {
      begin: (complete) => {
        this.view = [];
        this.isComplete = complete;
      },
      apply: (events) => this.view.push(...events.map((event) => (event as BlocksRemoved).hashes[0] as number)),
      fail: () => undefined,
    },
    read: (payload) => (payload[0] === 0 ? undefined : [eventOf(payload)]),
    onUnreadable: () => {
      this.failures++;
      this.history.stop();
    },
    defer: (work) => void setImmediate(work),
    canReplay: () => this.canReplay,
    askReplay: (from) => {
      this.asked = from;
    },
    onBlindReplay: () => undefined,
  });

  publish(isLost = false, first = this.engine): void {
    const seq = this.published.length;
    const batch = { seq, payload: Uint8Array.of(first, seq >> 16, seq >> 8, seq) };
    this.published.push(batch);
    if (!isLost) this.channel.push({ ...batch });
  }

  deliver(count = Infinity): void {
    for (let n = 0; n < count; n++) {
      const batch = this.channel.shift();
      if (!batch) return;
      this.history.live(batch);
    }
  }

  /** The answer of the engine; broken off, or with a part missing, if the test says so. */
  answer(limit = Infinity, skipAt = -1): void {
    const from = this.asked;
    if (from === undefined) return;
    this.asked = undefined;
    const kept = this.published.slice(-this.bufferSteps).filter((batch) => batch.seq >= from);
    let sent = 0;
    for (const batch of kept) {
      if (sent === limit) break;
      if (sent++ !== skipAt) this.history.replayed({ ...batch });
    }
    if (sent > 0 || limit === Infinity) this.history.replayEnded(sent === limit);
    else this.asked = from;
  }

  restart(): void {
    this.engine++;
    this.published = [];
    this.channel.length = 0;
  }

  /** Everything works again, for as long as it takes. */
  settle(): void {
    this.canReplay = true;
    this.history.reconnected();
    for (let round = 0; round < 12; round++) {
      this.deliver();
      this.answer();
      this.history.poll();
    }
  }

  get truth(): number[] {
    return this.published.map(({ payload }) => hashOf(payload));
  }
}

function hashOf(payload: Uint8Array): number {
  return payload.reduce((hash, byte) => hash * 256 + byte, 0);
}

function eventOf(payload: Uint8Array): KvEvent {
  return { type: 'removed', hashes: [hashOf(payload)], medium: 'GPU', group: 0 };
}

function started(options: Partial<Pick<World, 'canReplay' | 'bufferSteps'>> = {}): World {
  const world = Object.assign(new World(), options);
  world.history.start();
  return world;
}

describe('without replay', () => {
  test('a sequence from 0 is complete, one from later is not', () => {
    const world = started({ canReplay: false });
    world.publish();
    world.deliver();
    expect(world.isComplete).toBe(true);
    const late = started({ canReplay: false });
    late.publish(true);
    late.publish();
    late.deliver();
    expect([late.isComplete, late.view]).toEqual([false, late.truth.slice(1)]);
  });

  test('a restart that begins with 0 is complete at once', () => {
    const world = started({ canReplay: false });
    for (let n = 0; n < 3; n++) world.publish();
    world.deliver();
    world.restart();
    world.publish();
    world.deliver();
    expect([world.isComplete, world.view]).toEqual([true, world.truth]);
    expect(world.history.counts.restarts).toBe(1);
  });

  test('a connection that was lost makes the view void, since nobody can say what was missed', () => {
    const world = started({ canReplay: false });
    world.publish();
    world.deliver();
    world.history.disconnected();
    expect(world.view).toHaveLength(1);
    world.history.reconnected();
    expect([world.isComplete, world.view]).toEqual([false, []]);
  });
});

describe('with replay', () => {
  test('an engine that has published nothing is known to have nothing', () => {
    const world = started();
    expect(world.history.hasBegun).toBe(false);
    world.answer();
    expect([world.isComplete, world.history.lastSeq]).toEqual([true, -1]);
  });

  test('a restart is seen though its first batch heard is just the next number', () => {
    const world = started();
    world.answer();
    world.publish();
    world.publish();
    world.deliver();
    world.history.disconnected();
    world.restart();
    world.publish(true);
    world.publish(true);
    world.publish();
    world.history.reconnected();
    world.deliver();
    world.answer();
    world.answer();
    expect([world.isComplete, world.view]).toEqual([true, world.truth]);
  });

  test('live batches that are older than the replayed ones are no restart', () => {
    const world = started({ bufferSteps: 3 });
    for (let n = 0; n < 10; n++) world.publish();
    world.answer();
    world.deliver();
    expect(world.view).toEqual(world.truth.slice(7));
    expect(world.history.counts).toMatchObject({ restarts: 0, stale: 10 });
  });

  test('an answer with a batch missing is asked for again from there on', () => {
    const world = started();
    for (let n = 0; n < 10; n++) world.publish(true);
    world.answer(Infinity, 4);
    expect(world.view).toEqual(world.truth.slice(0, 4));
    expect(world.asked).toBe(3);
    world.answer();
    expect([world.isComplete, world.view]).toEqual([true, world.truth]);
  });

  test('answers that bring nothing new are not asked for without end', () => {
    const world = started();
    world.publish(true);
    world.answer();
    world.publish(true);
    world.publish();
    world.deliver();
    for (let n = 0; n < 3; n++) world.answer(Infinity, 1);
    expect(world.asked).toBeUndefined();
    expect([world.isComplete, world.view]).toEqual([false, world.truth.slice(2)]);
  });

  test('no answer to a gap: it is one, and older batches are fetched when there is an answer', () => {
    const world = started();
    world.answer();
    world.publish();
    world.publish(true);
    world.publish();
    world.deliver();
    world.canReplay = false;
    world.asked = undefined;
    world.history.replayAbsent();
    expect([world.isComplete, world.view]).toEqual([false, world.truth.slice(2)]);
    expect(world.history.counts.lost).toBe(1);
    world.settle();
    expect([world.isComplete, world.view]).toEqual([true, world.truth]);
  });

  test('no answer while the connection is gone proves nothing', () => {
    const world = started();
    world.answer();
    world.publish();
    world.deliver();
    world.history.poll();
    world.history.poll();
    world.history.disconnected();
    world.history.replayAbsent();
    expect(world.view).toEqual(world.truth);
    world.publish(true);
    world.settle();
    expect([world.isComplete, world.view]).toEqual([true, world.truth]);
  });

  test('a batch that cannot be read is a hole in what is replayed, and an end to what is live', () => {
    const world = started();
    world.publish(true);
    world.publish(true, 0);
    world.publish(true);
    world.answer();
    expect([world.isComplete, world.view, world.failures]).toEqual([false, world.truth.slice(2), 0]);
    world.publish(false, 0);
    world.deliver();
    expect([world.failures, world.history.hasBegun]).toEqual([1, false]);
  });

  test('a replay that ends in one that cannot be read fails', () => {
    const world = started();
    world.publish(true);
    world.publish(true, 0);
    world.answer();
    expect(world.failures).toBe(1);
  });
});

/** One step of a world in which everything goes wrong. */
function stumble(world: World, rng: Rng): void {
  const draw = rng();
  if (draw < 0.35) world.publish(rng() < 0.15);
  else if (draw < 0.65) world.deliver(1 + Math.floor(rng() * 5));
  else if (draw < 0.75) world.answer();
  else if (draw < 0.8) world.answer(Math.floor(rng() * 4));
  else if (draw < 0.84) world.answer(Infinity, 1 + Math.floor(rng() * 5));
  else if (draw < 0.88) world.history.poll();
  else if (draw < 0.91) {
    world.history.disconnected();
    if (rng() < 0.5) world.deliver();
    world.channel.length = 0;
    if (rng() < 0.4) world.restart();
    for (let n = Math.floor(rng() * 8); n > 0; n--) world.publish(true);
    world.history.reconnected();
  } else if (draw < 0.94) {
    world.asked = undefined;
    world.canReplay = false;
    world.history.replayAbsent();
  } else world.canReplay = true;
}

test('whatever is lost, doubled, broken off or restarted: in the end the view is that of the engine, from some batch on, or from the first where it says so', () => {
  let complete = 0;
  for (let seed = 1; seed <= 3000; seed++) {
    const rng = seededRng(seed);
    const world = started({ canReplay: rng() < 0.8, bufferSteps: 1 + Math.floor(rng() * 60) });
    for (let step = 0; step < 120; step++) stumble(world, rng);
    world.settle();
    const { truth, view } = world;
    const at = truth.length - view.length;
    if (at < 0 || view.some((hash, n) => hash !== truth[at + n]))
      throw new Error(`seed ${seed}: heard ${view.join()} of ${truth.join()}`);
    if (world.isComplete && at > 0)
      throw new Error(`seed ${seed}: says that ${view.length} of ${truth.length} batches are all`);
    // What the buffer holds is never missing.
    if (view.length < Math.min(truth.length, world.bufferSteps))
      throw new Error(`seed ${seed}: ${view.length} heard, ${world.bufferSteps} to be had`);
    if (world.isComplete) complete++;
  }
  expect(complete).toBeGreaterThan(300);
});
