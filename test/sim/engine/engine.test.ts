import { describe, expect, it } from 'vitest';
import type { Clock } from '../../../shared/env.ts';
import { Engine, type EngineOptions } from '../../../sim/engine/engine.ts';
import { EngineMetrics } from '../../../sim/engine/metrics.ts';
import type { EngineRequest } from '../../../sim/engine/request.ts';
import { VirtualClock } from '../../helpers/virtual-clock.ts';

function make(clock: Clock, options: Partial<EngineOptions> = {}) {
  const metrics = new EngineMetrics(256);
  const engine = new Engine({
    clock,
    stepTime: (batch) => 20 + batch.prefillTokens * 0.1,
    frontEndMs: 8,
    metrics,
    blockCount: 101,
    blockSize: 16,
    maxNumSeqs: 8,
    maxBatchedTokens: 64,
    maxModelLen: 256,
    sample: (request) => request.outputCount,
    ...options,
  });
  const log: string[] = [];
  const times: number[] = [];
  const submit = (id: string, promptLength: number, maxOutput: number): EngineRequest =>
    engine.submit(
      { id, prompt: Int32Array.from({ length: promptLength }, (_, i) => i), maxOutput },
      {
        onToken: (_request, token, nowMs) => {
          log.push(`${id} ${token}`);
          times.push(Number(nowMs.toFixed(6)));
        },
        onFinish: () => log.push(`${id} end`),
        onDeath: () => log.push(`${id} death`),
      },
    );
  return { engine, metrics, log, times, submit };
}

describe('engine', () => {
  it('takes the front-end delay, one step a prefill chunk, one step a token', () => {
    const clock = new VirtualClock();
    const { submit, times, log, metrics } = make(clock);
    const request = submit('a', 100, 3);
    clock.advance(1000);
    // 8 front end + (20 + 6.4) + (20 + 3.6), then a step of 20 each.
    expect(times).toEqual([58, 78, 98]);
    expect(log).toEqual(['a 0', 'a 1', 'a 2', 'a end']);
    expect(request.scheduledMs).toBe(8);
    expect(metrics.ttft.sum).toBeCloseTo(0.058, 9);
    expect(metrics.itl.count).toBe(2);
    expect(metrics.tpot.sum).toBeCloseTo(0.02, 9);
    expect(metrics.queueTime.sum).toBe(0);
    expect(metrics.iterationTokens.sum).toBe(103);
    expect(metrics.success.length).toBe(1);
  });

  it('lets a request that arrives during a step wait for its end', () => {
    const clock = new VirtualClock();
    const { submit, times } = make(clock);
    submit('a', 10, 2);
    clock.advance(20);
    submit('b', 10, 1);
    clock.advance(1000);
    // a: 8 + 21 = 29; b is queued at 28 and joins the step of 29, which carries its 10 tokens: ends at 50.
    expect(times).toEqual([29, 50, 50]);
  });

  it('with async scheduling, lets it wait for the step that is scheduled behind that one too', () => {
    const clock = new VirtualClock();
    const { engine, submit, times, log } = make(clock, { asyncScheduling: true });
    submit('a', 10, 3);
    clock.advance(20);
    submit('b', 10, 2);
    clock.advance(1000);
    // a: 8 + 21 = 29, then the step decided at 8: 49. b is queued at 28, joins the step decided at 29, which runs from
    // 49 to 70 and ends a; then a step alone.
    expect(times).toEqual([29, 49, 70, 70, 90]);
    expect(log).toEqual(['a 0', 'a 1', 'a 2', 'a end', 'b 0', 'b 1', 'b end']);
    expect(engine.steps).toBe(4);
    expect(engine.scheduler.kv.pool.usageRatio).toBe(0);
  });

  it('with async scheduling, drops what an aborted request had in the steps under way', () => {
    const clock = new VirtualClock();
    const { engine, submit, log } = make(clock, { asyncScheduling: true });
    const request = submit('a', 10, 50);
    submit('b', 10, 3);
    clock.advance(35);
    engine.abort(request);
    clock.advance(1000);
    expect(log).toEqual(['a 0', 'b 0', 'b 1', 'b 2', 'b end']);
    expect(engine.scheduler.kv.pool.usageRatio).toBe(0);
  });

  it('does not slow down when timers are late', () => {
    const inner = new VirtualClock();
    const late: Clock = {
      nowMs: () => inner.nowMs(),
      wallMs: () => inner.wallMs(),
      after: (ms, fn) => inner.after(ms + 1.5, fn),
      every: (ms, fn) => inner.every(ms, fn),
    };
    const { submit, times } = make(late, { frontEndMs: 0 });
    submit('a', 10, 50);
    inner.advance(5000);
    expect(times.length).toBe(50);
    expect(times.at(-1)).toBeCloseTo(21 + 49 * 20 + 1.5, 6);
  });

  it('waits on when a timer fires early', () => {
    const inner = new VirtualClock();
    const early: Clock = {
      nowMs: () => inner.nowMs(),
      wallMs: () => inner.wallMs(),
      after: (ms, fn) => inner.after(Math.max(0.1, ms - 2), fn),
      every: (ms, fn) => inner.every(ms, fn),
    };
    const { submit, times } = make(early, { frontEndMs: 0 });
    submit('a', 10, 20);
    inner.advance(5000);
    for (const [i, at] of times.entries()) {
      expect(at).toBeGreaterThanOrEqual(21 + i * 20 - 0.76);
      expect(at).toBeLessThanOrEqual(21 + i * 20 + 0.1);
    }
  });

  it('aborts at once: blocks free, gauges fall, nothing more is heard', () => {
    const clock = new VirtualClock();
    const { engine, submit, log } = make(clock);
    const queued = submit('q', 10, 5);
    engine.abort(queued);
    const request = submit('a', 100, 50);
    clock.advance(200);
    expect(engine.gauges.running).toBe(1);
    const heard = log.length;
    engine.abort(request);
    expect(engine.gauges).toEqual({ running: 0, waiting: 0, kvUsageRatio: 0 });
    clock.advance(1000);
    expect(log.length).toBe(heard);
    expect(engine.inFlight).toBe(0);
    expect(log.some((line) => line.startsWith('q'))).toBe(false);
  });

  it('slows down by a factor, hangs and goes on, and tells everyone when it dies', () => {
    const clock = new VirtualClock();
    const { engine, submit, times, log } = make(clock, { frontEndMs: 0 });
    engine.slowFactor = 3;
    submit('a', 10, 100);
    clock.advance(200);
    expect(times.slice(0, 2)).toEqual([63, 123]);
    engine.slowFactor = 1;
    engine.setHung(true);
    clock.advance(5000);
    expect(times.length).toBe(3);
    engine.setHung(false);
    clock.advance(100);
    expect(times.length).toBeGreaterThan(6);
    engine.die();
    expect(log.at(-1)).toBe('a death');
    const heard = log.length;
    clock.advance(1000);
    expect(log.length).toBe(heard);
  });

  it('knows how long it was busy', () => {
    const clock = new VirtualClock();
    const { engine, submit } = make(clock, { frontEndMs: 0 });
    submit('a', 10, 3);
    clock.advance(30);
    expect(engine.busyMs(clock.nowMs())).toBeCloseTo(30, 9);
    clock.advance(500);
    expect(engine.busyMs(clock.nowMs())).toBeCloseTo(61, 9);
  });

  it('repeats itself exactly', () => {
    const runOnce = (): number[] => {
      const clock = new VirtualClock();
      const { submit, times } = make(clock);
      for (let i = 0; i < 30; i++)
        clock.after(i * 13.7, () => void submit(`r${i}`, 20 + ((i * 37) % 150), 1 + ((i * 11) % 40)));
      clock.advance(20000);
      return times;
    };
    expect(runOnce()).toEqual(runOnce());
  });
});
