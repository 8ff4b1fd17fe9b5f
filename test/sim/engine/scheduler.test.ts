import { describe, expect, it } from 'vitest';
import { seededRng } from '../../../shared/env.ts';
import { EngineRequest, type RequestSpec } from '../../../sim/engine/request.ts';
import { Scheduler, type SchedulerOptions } from '../../../sim/engine/scheduler.ts';
import { Step } from '../../../sim/engine/step.ts';

const range = (from: number, to: number): Int32Array => Int32Array.from({ length: to - from }, (_, i) => from + i);

function make(options: Partial<SchedulerOptions> = {}) {
  let sampled = 1000;
  const all = {
    blockCount: 20,
    blockSize: 4,
    maxNumSeqs: 4,
    maxBatchedTokens: 16,
    maxModelLen: 64,
    sample: () => ++sampled,
    ...options,
  };
  const scheduler = new Scheduler(all);
  const step = new Step(all.maxNumSeqs);
  const add = (id: string, prompt: Int32Array, maxOutput: number, extra: Partial<RequestSpec> = {}): EngineRequest => {
    const request = new EngineRequest({ id, prompt, maxOutput, ...extra }, 4);
    scheduler.add(request);
    return request;
  };
  const run = (): Record<string, number> => {
    scheduler.schedule(step);
    const scheduled = Object.fromEntries(
      Array.from({ length: step.count }, (_, i) => [step.requests[i]!.id, step.tokens[i]!]),
    );
    scheduler.update(step);
    return scheduled;
  };
  return { scheduler, step, add, run };
}

describe('scheduler', () => {
  it('frees an aborted request at once, running or waiting, and never samples it again', () => {
    const { scheduler, step, add, run } = make({ maxNumSeqs: 1 });
    const a = add('a', range(1, 11), 5);
    const b = add('b', range(1, 11), 5);
    run();
    scheduler.schedule(step);
    scheduler.abort(a);
    scheduler.update(step);
    expect(step.sampled[0]).toBe(-1);
    expect(scheduler.kv.pool.freeCount).toBe(19);
    scheduler.abort(b);
    expect(scheduler.hasUnfinished).toBe(false);
    expect(a.finishReason).toBe('abort');
  });

  it('admits no more than max_num_seqs', () => {
    const { add, run } = make({ maxNumSeqs: 2 });
    for (const id of ['a', 'b', 'c']) add(id, range(1, 3), 2);
    expect(run()).toEqual({ a: 2, b: 2 });
    expect(run()).toEqual({ a: 1, b: 1 });
    expect(run()).toEqual({ c: 2 });
  });

  it('shares no blocks between LoRAs', () => {
    const { add, run } = make();
    const plain = add('a', range(1, 11), 1);
    const lora = add('b', range(1, 11), 1, { lora: 'sql' });
    const again = add('c', range(1, 11), 1, { lora: 'sql' });
    for (let i = 0; i < 4; i++) run();
    expect([plain.hitTokens, lora.hitTokens, again.hitTokens]).toEqual([0, 0, 8]);
  });

  it('takes back the tokens of a victim already scheduled in the step (priority policy)', () => {
    const { scheduler, step, add, run } = make({ policy: 'priority', blockCount: 7, maxBatchedTokens: 10 });
    const low = add('low', range(1, 8), 10, { priority: 9 });
    run();
    add('high', range(101, 112), 10, { priority: 1 });
    // low: 2 blocks, the third in step 3; high: 3 blocks, wants its fourth in step 5, when low is scheduled before it.
    for (let i = 2; i < 5; i++) run();
    scheduler.schedule(step);
    expect(step.preempted.map((r) => r.id)).toEqual(['low']);
    expect(low.status).toBe('preempted');
    expect(Array.from({ length: step.count }, (_, i) => step.requests[i]!.id)).toEqual(['high']);
  });

  it('ends a request at the context limit', () => {
    const { add, run } = make({ maxModelLen: 12 });
    const request = add('a', range(1, 11), 50);
    while (request.status !== 'finished') run();
    expect(request.outputCount).toBe(2);
    expect(request.finishReason).toBe('length');
  });

  it('refuses to reset the prefix cache while blocks are held', () => {
    const { scheduler, add, run } = make();
    add('a', range(1, 11), 2);
    run();
    expect(scheduler.resetPrefixCache()).toBe(false);
    run();
    expect(scheduler.resetPrefixCache()).toBe(true);
    const again = add('b', range(1, 11), 1);
    run();
    expect(again.hitTokens).toBe(0);
  });

  it('keeps its books under random load: nothing leaks, no block is held twice, all requests end', () => {
    for (const policy of ['fcfs', 'priority'] as const) {
      const rng = seededRng(11);
      const { scheduler, step, add } = make({ policy, blockCount: 30, maxBatchedTokens: 24, recordEvents: true });
      const requests: EngineRequest[] = [];
      for (let round = 0; round < 3000; round++) {
        if (rng() < 0.15 && requests.length < 200) {
          const from = 1 + Math.floor(rng() * 3) * 100;
          const priority = Math.floor(rng() * 3);
          requests.push(
            add(`r${requests.length}`, range(from, from + 1 + Math.floor(rng() * 40)), 1 + Math.floor(rng() * 20), {
              priority,
            }),
          );
        }
        if (rng() < 0.02 && requests.length > 0) scheduler.abort(requests[Math.floor(rng() * requests.length)]!);
        scheduler.schedule(step);
        expect(step.totalTokens).toBeLessThanOrEqual(24);
        scheduler.update(step);
        const held = new Set(scheduler.running.flatMap((r) => Array.from(r.blocks.subarray(0, r.blockCount))));
        expect(scheduler.kv.pool.freeCount + held.size).toBe(29);
        expect(scheduler.kv.pool.freeOrder().length).toBe(scheduler.kv.pool.freeCount);
      }
      while (scheduler.hasUnfinished) {
        scheduler.schedule(step);
        scheduler.update(step);
      }
      expect(requests.every((r) => r.status === 'finished')).toBe(true);
      expect(scheduler.preemptionCount).toBeGreaterThan(0);
      expect(scheduler.kv.pool.freeCount).toBe(29);
    }
  });
});
