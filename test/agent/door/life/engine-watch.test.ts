import { describe, expect, it } from 'vitest';
import { type Doubt, EngineWatch, type WatchFacts } from '../../../../agent/door/life/engine-watch.ts';

const TICK_MS = 100;
const STUCK_MS = 10_000;
const BUSY: WatchFacts = { work: true, gaugesFresh: true, longestStepMs: 50, paused: false };

/**
 * A watch on its own time: `run` lets ticks pass, each after what the engine does, and gives each doubt that begins and
 * each end of what runs there.
 */
class Watched {
  readonly watch = new EngineWatch({ suspectAfterMs: 3000, stuckAfterMs: STUCK_MS });
  nowMs = 0;

  constructor() {
    this.watch.tick(0, BUSY);
  }

  run(ms: number, act: (watch: EngineWatch) => void = () => undefined, facts: Partial<WatchFacts> = {}): Doubt[] {
    const begun: Doubt[] = [];
    for (const endMs = this.nowMs + ms; this.nowMs < endMs;) {
      this.nowMs += TICK_MS;
      const before = this.watch.doubt;
      act(this.watch);
      const ends = this.watch.tick(this.nowMs, { ...BUSY, ...facts });
      const { doubt } = this.watch;
      if (doubt && doubt !== before) begun.push(doubt);
      if (ends) expect(doubt).toBe(ends);
    }
    return begun;
  }
}

describe('silence', () => {
  it('a second without a byte or an answered check brings no new requests, three end what runs', () => {
    const one = new Watched();
    one.run(900);
    expect(one.watch.doubt).toBeUndefined();
    expect(one.run(200)).toEqual(['quiet']);
    expect(one.run(1800)).toEqual([]);
    expect(one.run(200)).toEqual(['silent']);
    expect(one.run(60_000)).toEqual([]);
  });

  it.each([
    ['a byte', (watch: EngineWatch) => watch.byte(false)],
    ['an answered check', (watch: EngineWatch) => watch.checked()],
  ])('ends with %s', (_, act) => {
    const one = new Watched();
    one.run(5000);
    expect(one.watch.doubt).toBe('silent');
    act(one.watch);
    one.run(TICK_MS);
    expect(one.watch.doubt).toBeUndefined();
  });

  it('moving gauges keep what runs there, but bring no new requests', () => {
    const one = new Watched();
    expect(one.run(60_000, (watch) => watch.read(true))).toEqual(['quiet']);
    expect(one.watch.doubt).toBe('quiet');
  });

  it('does not count while our own loop stands still', () => {
    const one = new Watched();
    for (let i = 0; i < 3; i++) {
      one.nowMs += 60_000;
      one.watch.tick(one.nowMs, BUSY);
    }
    expect(one.watch.doubt).toBeUndefined();
  });
});

describe('standstill', () => {
  const checked = (watch: EngineWatch): void => {
    watch.checked();
    watch.read(false);
  };

  it('begins after stuckAfterMs without a moved gauge, though checks are answered', () => {
    const one = new Watched();
    expect(one.run(STUCK_MS - TICK_MS, checked)).toEqual([]);
    expect(one.run(2 * TICK_MS, checked)).toEqual(['stuck']);
  });

  it.each([
    ['has no work', { work: false }],
    ['has gauges that are not read', { gaugesFresh: false }],
    ['computes long steps', { longestStepMs: 20_000 }],
  ])('is none in an engine that %s', (_, facts) => {
    expect(new Watched().run(6 * STUCK_MS, checked, facts)).toEqual([]);
  });

  it('lasts at least ten of the longest steps', () => {
    const one = new Watched();
    expect(one.run(20_000 - TICK_MS, checked, { longestStepMs: 2000 })).toEqual([]);
    expect(one.run(2 * TICK_MS, checked, { longestStepMs: 2000 })).toEqual(['stuck']);
  });

  it('ends when a gauge moves, and when a probe is answered', () => {
    for (const act of [(watch: EngineWatch) => watch.read(true), (watch: EngineWatch) => watch.proven()]) {
      const one = new Watched();
      one.run(2 * STUCK_MS, checked);
      expect(one.watch.doubt).toBe('stuck');
      act(one.watch);
      one.run(TICK_MS, checked);
      expect(one.watch.doubt).toBeUndefined();
    }
  });

  it('bytes do not hide it: an API server sends headers and refusals without its engine core', () => {
    const one = new Watched();
    expect(
      one.run(2 * STUCK_MS, (watch) => {
        checked(watch);
        watch.byte(false);
      }),
    ).toEqual(['stuck']);
  });

  it('tokens deny it, whatever the gauges show', () => {
    const one = new Watched();
    expect(
      one.run(2 * STUCK_MS, (watch) => {
        checked(watch);
        watch.byte(true);
      }),
    ).toEqual([]);
  });

  it('needs a reading that shows the gauges unmoved, however long readings are apart', () => {
    expect(new Watched().run(6 * STUCK_MS, (watch) => watch.checked())).toEqual([]);
  });

  it('a request that comes late ends at once', () => {
    const one = new Watched();
    one.run(2 * STUCK_MS, checked);
    one.run(2 * STUCK_MS, checked, { work: false });
    one.nowMs += TICK_MS;
    expect(one.watch.tick(one.nowMs, BUSY)).toBe('stuck');
  });

  it('does not end with answered checks', () => {
    const one = new Watched();
    expect(one.run(10 * STUCK_MS, checked)).toEqual(['stuck']);
    expect(one.watch.doubt).toBe('stuck');
  });
});

describe('loss', () => {
  const moves = (watch: EngineWatch): void => {
    watch.checked();
    watch.read(true);
  };

  it('lasts until a probe is answered, whatever else moves', () => {
    const one = new Watched();
    one.watch.lose();
    one.run(20_000, moves);
    expect(one.watch.doubt).toBe('lost');
    one.watch.proven();
    one.run(TICK_MS, moves);
    expect(one.watch.doubt).toBeUndefined();
  });

  it('gives way to silence', () => {
    const one = new Watched();
    one.watch.lose();
    expect(one.run(4000)).toEqual(['silent']);
  });

  it('does not hide that the engine stands still: what is left there ends too', () => {
    const one = new Watched();
    one.watch.lose();
    const still = (watch: EngineWatch): void => {
      watch.checked();
      watch.read(false);
    };
    expect(one.run(STUCK_MS + TICK_MS, still)).toEqual(['stuck']);
  });
});

describe('pause', () => {
  const paused = { paused: true };
  const still = (watch: EngineWatch): void => {
    watch.checked();
    watch.read(false);
  };

  it('brings no new requests at once, and ends what runs there after 5 s of standstill', () => {
    const one = new Watched();
    expect(one.run(4900, still, paused)).toEqual(['paused']);
    expect(one.run(200, still, paused)).toEqual(['stuck']);
  });

  it('what moves during it goes on: vLLM may finish what it has before', () => {
    const one = new Watched();
    const moves = (watch: EngineWatch): void => {
      watch.checked();
      watch.read(true);
    };
    expect(one.run(60_000, moves, paused)).toEqual(['paused']);
    one.run(TICK_MS, moves);
    expect(one.watch.doubt).toBeUndefined();
  });
});
