import { describe, expect, test } from 'vitest';
import { EngineDoor } from '../../helpers/engine-door.ts';
import { below } from '../../helpers/random.ts';

const NO_TEXT = {
  hashes: new Float64Array(),
  end: [0, 0] as const,
  text: Buffer.alloc(0),
  model: 'm',
  cacheSalt: '',
  tokensPerBlock: 16,
  exactTokens: true,
  computed: true,
  sequences: 1,
};

/**
 * Longest that the ledger may differ from the engine: a step, and the front end in which the engine itself does not
 * count a request.
 */
const STEP_MS = 400;

describe("totals against the engine's own", () => {
  test.each(['A30', 'L20', 'A100'])('on an %s under load, and at rest', (gpu) => {
    const door = new EngineDoor(gpu, { noise: 0.02 });
    const { clock, engine, ledger } = door;
    let sinceMs = clock.nowMs();
    const watch = clock.every(5, () => {
      const totals = ledger.totals();
      expect(totals.inFlight).toBe(engine.inFlight);
      expect(totals.waiting + totals.prefilling + totals.decoding).toBe(totals.inFlight);
      const decoding = engine.scheduler.running.filter((request) => request.firstTokenMs >= 0).length;
      if (totals.decoding === decoding) sinceMs = clock.nowMs();
      expect(clock.nowMs() - sinceMs).toBeLessThan(STEP_MS);
      expect(totals.pendingTokens).toBeGreaterThanOrEqual(0);
    });
    door.traffic(20_000, 4, door.sendMixed);
    clock.advance(60_000);
    watch.cancel();
    expect(engine.inFlight).toBe(0);
    expect(ledger.totals()).toMatchObject({
      inFlight: 0,
      waiting: 0,
      prefilling: 0,
      decoding: 0,
      pendingTokens: 0,
      waitingTokens: 0,
      decodeContextTokens: 0,
      usedTokens: 0,
    });
  });

  test('pending tokens shrink chunk by chunk while a long prompt is computed', () => {
    const door = new EngineDoor('A30');
    door.traffic(20_000, 3, door.sendMixed);
    door.clock.advance(60_000);
    const { request } = door.send(door.prompt(8000), 5);
    const wrong: number[] = [];
    while (request.firstTokenMs < 0) {
      door.clock.advance(10);
      wrong.push(Math.abs(door.ledger.totals().pendingTokens - (8000 - Math.min(7999, request.computed))));
    }
    // The engine counts a chunk as computed when its step begins.
    expect(Math.max(...wrong)).toBeLessThanOrEqual(2 * 2048);
    wrong.sort((a, b) => a - b);
    expect(wrong[Math.floor(wrong.length / 2)]).toBeLessThanOrEqual(2048);
  });

  test('an answer that is not streamed moves to decoding when the law says so', () => {
    const door = new EngineDoor('A30');
    door.traffic(10_000, 3, door.sendMixed);
    door.clock.advance(60_000);
    const { request } = door.send(door.prompt(1000), 200, false);
    expect(door.ledger.totals()).toMatchObject({ inFlight: 1, prefilling: 1, decoding: 0 });
    while (request.firstTokenMs < 0) door.clock.advance(1);
    door.clock.advance(60);
    expect(door.ledger.totals()).toMatchObject({ inFlight: 1, prefilling: 0, decoding: 1 });
    door.clock.advance(20_000);
    expect(door.ledger.totals().inFlight).toBe(0);
    expect(door.ledger.totals().usedTokens).toBe(0);
  });

  test('mean output and work ratio follow the traffic', () => {
    const door = new EngineDoor('A100');
    door.traffic(60_000, 2, () => door.send(door.prompt(1000), 50));
    const { meanOutputTokens, workRatio } = door.ledger.totals();
    expect(meanOutputTokens).toBeCloseTo(50, 5);
    // 2/s × (1000·c1 + c2·1000²/2), with the EWMA at 1 − e⁻² of its level.
    const { c1, c2 } = door.gpu;
    const expected = 0.002 * (1000 * c1 + c2 * 500_000) * (1 - Math.exp(-2));
    expect(workRatio).toBeGreaterThan(expected * 0.7);
    expect(workRatio).toBeLessThan(expected * 1.3);
  });
});

describe('admission as the engine does it', () => {
  /**
   * Both counts of waiting requests, taken whenever every running request is past its prefill: then only room keeps the
   * others out.
   */
  function compareWaiting(door: EngineDoor, ms: number): { moments: number; wrong: number; most: number } {
    const { clock, engine, ledger } = door;
    const seen = { moments: 0, wrong: 0, most: 0 };
    const watch = clock.every(7, () => {
      const { scheduler } = engine;
      if (
        engine.inFlight !== scheduler.running.length + scheduler.waiting.size ||
        scheduler.running.some((request) => request.firstTokenMs < 0)
      )
        return;
      seen.moments += 1;
      if (ledger.totals().waiting !== scheduler.waiting.size) seen.wrong += 1;
      seen.most = Math.max(seen.most, scheduler.waiting.size);
    });
    clock.advance(ms);
    watch.cancel();
    return seen;
  }

  test('a full KV cache holds requests back, first come, first served', () => {
    const door = new EngineDoor('A30', { kvTokens: 6000 });
    for (let i = 0; i < 12; i++) door.send(door.prompt(1200 + below(door.rng, 300)), 40);
    expect(door.ledger.totals().waiting).toBeGreaterThan(6);
    const { moments, wrong, most } = compareWaiting(door, 20_000);
    expect(most).toBeGreaterThan(4);
    expect(wrong / moments).toBeLessThan(0.05);
    expect(door.ledger.inFlight).toBe(0);
  });

  test('so does a full batch', () => {
    const door = new EngineDoor('A30', { maxNumSeqs: 4 });
    for (let i = 0; i < 12; i++) door.send(door.prompt(100), 30 + i);
    const { moments, wrong, most } = compareWaiting(door, 20_000);
    expect(most).toBe(8);
    expect(wrong / moments).toBeLessThan(0.05);
  });

  test('a cached prefix that nobody holds takes room once it is held', () => {
    const door = new EngineDoor('A30', { kvTokens: 4096 });
    const prefix = door.prompt(1600);
    door.send(prefix, 2);
    door.clock.advance(5000);
    door.send(door.prompt(2480), 100);
    door.clock.advance(1000);
    door.send(Int32Array.from([...prefix, ...door.prompt(96)]), 5);
    door.clock.advance(500);
    expect(door.engine.scheduler.waiting.size).toBe(1);
    expect(door.ledger.totals()).toMatchObject({ waiting: 1, decoding: 1 });
    door.clock.advance(10_000);
    expect(door.ledger.inFlight).toBe(0);
  });

  test('a first token says that the engine has admitted, whatever the estimate', () => {
    const door = new EngineDoor('A30', { kvTokens: 4096 });
    const clash = { ...NO_TEXT, stream: true };
    const first = door.ledger.open({ ...clash, promptTokens: 4000 });
    const second = door.ledger.open({ ...clash, promptTokens: 4000 });
    expect(door.ledger.totals().waiting).toBe(1);
    door.ledger.tokens(second, 1);
    expect(door.ledger.totals()).toMatchObject({ waiting: 0, prefilling: 1, decoding: 1 });
    door.ledger.close(first, undefined);
    door.ledger.close(second, undefined);
    door.ledger.close(second, undefined);
    expect(door.ledger.totals()).toMatchObject({ inFlight: 0, usedTokens: 0 });
  });

  test('a prompt that no engine of this size could hold does not block the line', () => {
    const door = new EngineDoor('A30', { kvTokens: 4096 });
    const prompt = { ...NO_TEXT, stream: true };
    const huge = door.ledger.open({ ...prompt, promptTokens: 50_000 });
    const small = door.ledger.open({ ...prompt, promptTokens: 10 });
    door.ledger.close(huge, undefined);
    expect(door.ledger.totals()).toMatchObject({ inFlight: 1, waiting: 0, prefilling: 1 });
    door.ledger.close(small, undefined);
    expect(door.ledger.totals().usedTokens).toBe(0);
  });
});

describe('cached prefixes', () => {
  test('hit tokens are what the engine finds', () => {
    const door = new EngineDoor('A30');
    const history = door.prompt(1000);
    for (let turn = 0; turn < 6; turn++) {
      const prompt = Int32Array.from([...history.subarray(0, 300 + turn * 100), ...door.prompt(40)]);
      const { entry, request } = door.send(prompt, 3);
      door.clock.advance(3000);
      expect(Math.abs(entry.hitTokens - Math.max(0, request.hitTokens))).toBeLessThanOrEqual(32);
    }
  });
});

test('an engine that restarts leaves nothing behind, and late news of its requests changes nothing', () => {
  const door = new EngineDoor('A30');
  const { entry } = door.send(door.prompt(500), 100);
  door.clock.advance(300);
  door.ledger.reset();
  const empty = { inFlight: 0, waiting: 0, prefilling: 0, decoding: 0, pendingTokens: 0, usedTokens: 0, workRatio: 0 };
  expect(door.ledger.totals()).toMatchObject(empty);
  door.ledger.tokens(entry, 1);
  door.ledger.close(entry, { outputTokens: 5, cachedTokens: 0 });
  expect(door.ledger.totals()).toMatchObject(empty);
  expect(door.cache.blockCount).toBe(0);
});
