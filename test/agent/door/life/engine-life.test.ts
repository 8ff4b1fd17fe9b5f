import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { EngineGauges } from '../../../../agent/door/collectors/index.ts';
import { EngineLife } from '../../../../agent/door/life/engine-life.ts';
import { OpenAttempts } from '../../../../agent/door/open-attempts.ts';
import type { Upstream } from '../../../../agent/wire/upstream.ts';
import { type FakeAttempt, openAttempt } from '../../../helpers/open-attempt.ts';
import { logSpy } from '../../../helpers/log-spy.ts';
import { VirtualClock } from '../../../helpers/virtual-clock.ts';

const SUSPECT_MS = 3000;
const STUCK_MS = 20_000;
const CHECK_MS = 250;

/** An engine as its door's collectors see it, on virtual time. What it does goes on until it is told to stop. */
class Engine {
  readonly clock = new VirtualClock();
  readonly open = new OpenAttempts();
  readonly spy = logSpy();
  readonly life: EngineLife;
  answersChecks = true;
  answersProbes = true;
  moves = true;
  /** running and waiting */
  counts = 0;
  goneMs: number | undefined;
  /** undefined: not in development mode */
  paused: boolean | undefined;
  probes = 0;
  private heardMs = 0;
  private generationTokens = 0;
  private reading: { value: EngineGauges; atMs: number; beganMs: number } | undefined;

  constructor() {
    const ask = ({ path }: { path: string }): Promise<{ status: number; body: Buffer }> => {
      if (path === '/is_paused')
        return Promise.resolve(
          this.paused === undefined
            ? { status: 404, body: Buffer.from('{}') }
            : { status: 200, body: Buffer.from(`{"is_paused":${this.paused}}`) },
        );
      this.probes += 1;
      return this.answersProbes
        ? Promise.resolve({ status: 200, body: Buffer.alloc(0) })
        : new Promise(() => undefined);
    };
    this.life = new EngineLife({
      instance: 'i',
      env: { clock: this.clock, rng: () => 0.5, log: this.spy.log },
      limits: { suspectAfterMs: SUSPECT_MS, stuckAfterMs: STUCK_MS },
      open: this.open,
      upstream: { ask } as unknown as Upstream,
      headers: {},
      sources: {
        healthHeardMs: () => this.heardMs,
        goneMs: () => this.goneMs,
        gauges: () => this.reading,
        longestStepMs: () => 50,
        model: () => 'm',
      },
    });
    this.clock.every(CHECK_MS, () => {
      if (this.answersChecks) this.heardMs = this.clock.nowMs();
    });
    this.clock.every(1000, () => {
      if (!this.answersChecks) return;
      if (this.moves) this.generationTokens += 1;
      const nowMs = this.clock.nowMs();
      this.reading = {
        value: { ...GAUGES, running: this.counts, generationTokens: this.generationTokens },
        atMs: nowMs,
        beganMs: nowMs,
      };
    });
    this.life.start();
    this.clock.advance(1000);
  }

  send(changes: Parameters<typeof openAttempt>[0] = {}): FakeAttempt {
    const one = openAttempt({ sentMs: this.clock.nowMs(), ...changes });
    const end = one.end;
    this.open.add(one);
    one.end = (failure) => {
      this.open.remove(one);
      end(failure);
    };
    return one;
  }

  /** Lets time pass, and what waits for answers go on in between. */
  async run(ms: number): Promise<void> {
    for (let doneMs = 0; doneMs < ms; doneMs += CHECK_MS) {
      this.clock.advance(CHECK_MS);
      await Promise.resolve();
      await Promise.resolve();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

const GAUGES = {
  running: 0,
  waiting: 0,
  kvUsageRatio: 0,
  prefixQueries: 0,
  promptTokens: 0,
  generationTokens: 0,
  preemptions: 0,
} as EngineGauges;

let engine: Engine;
beforeEach(() => {
  engine = new Engine();
});
afterEach(() => engine.life.stop());

it('an engine that is up and works is never cut, however long an answer takes', async () => {
  const one = engine.send({ stream: false });
  engine.counts = 1;
  await engine.run(600_000);
  expect(one.failures).toEqual([]);
  expect(engine.life.doubt).toBeUndefined();
});

it('silent: new requests avoid it after a second, what runs there ends after suspectAfterMs', async () => {
  const one = engine.send();
  engine.answersChecks = false;
  await engine.run(1500);
  expect(engine.life.doubt).toBe('quiet');
  expect(one.failures).toEqual([]);
  await engine.run(2500);
  expect(engine.life.doubt).toBe('silent');
  expect(one.failures).toEqual(['silent']);
  engine.answersChecks = true;
  await engine.run(500);
  expect(engine.life.doubt).toBeUndefined();
});

it('bytes of an answer are life too', async () => {
  engine.answersChecks = false;
  const one = engine.send();
  for (let i = 0; i < 100; i++) {
    engine.life.byte(true);
    await engine.run(500);
  }
  expect(one.failures).toEqual([]);
  expect(engine.life.doubt).toBeUndefined();
});

it('stuck: after stuckAfterMs what runs there ends, and it gets requests again when it answers a probe', async () => {
  const one = engine.send();
  engine.counts = 1;
  engine.moves = engine.answersProbes = false;
  await engine.run(STUCK_MS - 1000);
  expect(one.failures).toEqual([]);
  expect(engine.probes).toBe(0);
  await engine.run(3000);
  expect(one.failures).toEqual(['stuck']);
  expect(engine.life.doubt).toBe('stuck');
  await engine.run(60_000);
  expect(engine.life.doubt).toBe('stuck');
  expect(engine.probes).toBe(1);
  engine.counts = 0;
  engine.moves = true;
  await engine.run(2000);
  expect(engine.life.doubt).toBeUndefined();
});

it('without work nothing has to move', async () => {
  engine.moves = false;
  engine.send({ sequences: 0 });
  engine.send({ instance: 'another' });
  await engine.run(10 * STUCK_MS);
  expect(engine.life.doubt).toBeUndefined();
});

it('paused: new requests avoid it, what it holds ends, and it gets requests again when it goes on', async () => {
  engine.paused = true;
  engine.moves = engine.answersProbes = false;
  engine.counts = 1;
  const one = engine.send();
  await engine.run(4000);
  expect(engine.life.doubt).toBe('paused');
  expect(one.failures).toEqual([]);
  await engine.run(6000);
  expect(one.failures).toEqual(['stuck']);
  // One more, from an entry that does not know yet.
  const late = engine.send();
  await engine.run(500);
  expect(late.failures).toEqual(['stuck']);
  await engine.run(60_000);
  expect(engine.life.doubt).toBe('stuck');
  engine.paused = false;
  engine.counts = 0;
  engine.moves = true;
  await engine.run(3000);
  expect(engine.life.doubt).toBeUndefined();
});

describe('lost', () => {
  it('only those that are missing end; the engine proves itself with a probe', async () => {
    const [kept, missing] = [engine.send({ forecastMs: 100_000 }), engine.send({ forecastMs: 2000 })];
    engine.counts = 1;
    await engine.run(13_000);
    expect(missing.failures).toEqual(['lost']);
    expect(kept.failures).toEqual([]);
    await engine.run(1000);
    expect(engine.probes).toBeGreaterThan(0);
    expect(engine.life.doubt).toBeUndefined();
    await engine.run(60_000);
    expect(kept.failures).toEqual([]);
  });

  it('what stands still besides ends when it is stuck', async () => {
    const [counted, missing] = [engine.send({ forecastMs: 100_000 }), engine.send()];
    engine.counts = 1;
    engine.moves = engine.answersProbes = false;
    await engine.run(13_000);
    expect(missing.failures).toEqual(['lost']);
    expect(engine.life.doubt).toBe('lost');
    await engine.run(STUCK_MS - 10_000);
    expect(counted.failures).toEqual(['stuck']);
  });
});

describe('gone', () => {
  it('ends what was sent before the check that found it so, once', async () => {
    const before = engine.send();
    await engine.run(500);
    engine.goneMs = engine.clock.nowMs();
    const after = engine.send({ sentMs: engine.goneMs + 1 });
    await engine.run(1000);
    expect(before.failures).toEqual(['gone']);
    expect(after.failures).toEqual([]);
  });

  it('a restart ends what was sent before it', () => {
    const [before, after] = [engine.send({ sentMs: 100 }), engine.send({ sentMs: 900 })];
    engine.life.restarted(900);
    expect(before.failures).toEqual(['gone']);
    expect(after.failures).toEqual([]);
  });
});

it('a doubt is told once when it begins and once when it ends; a second of quiet is no news', async () => {
  engine.answersChecks = false;
  await engine.run(2000);
  engine.answersChecks = true;
  await engine.run(1000);
  expect(engine.spy.lines).toEqual([]);
  engine.answersChecks = false;
  await engine.run(10_000);
  engine.answersChecks = true;
  await engine.run(1000);
  expect(engine.spy.lines.map((one) => one.msg)).toEqual([
    'the engine gets no new requests',
    'the engine is no longer in doubt',
  ]);
});
