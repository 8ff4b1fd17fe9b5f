import { expect, it } from 'vitest';
import { EnginePause } from '../../../../agent/door/life/engine-pause.ts';
import type { Upstream } from '../../../../agent/wire/upstream.ts';
import { VirtualClock } from '../../../helpers/virtual-clock.ts';

/** An engine that answers so, and how often it was asked. */
function asking(answer: () => { status: number; body: string }) {
  const clock = new VirtualClock();
  const seen = { asked: 0 };
  const ask = (): Promise<{ status: number; body: Buffer }> => {
    seen.asked += 1;
    const { status, body } = answer();
    return Promise.resolve({ status, body: Buffer.from(body) });
  };
  const pause = new EnginePause(clock, { ask } as unknown as Upstream, {});
  const run = async (seconds: number): Promise<void> => {
    for (let i = 0; i < seconds * 10; i++) {
      pause.ask();
      clock.advance(100);
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  return { pause, seen, run };
}

it('follows what vLLM says, asked once a second', async () => {
  let paused = true;
  const { pause, seen, run } = asking(() => ({ status: 200, body: `{"is_paused":${paused}}` }));
  expect(pause.paused).toBe(false);
  await run(5);
  expect(pause.paused).toBe(true);
  expect(seen.asked).toBe(5);
  paused = false;
  await run(1);
  expect(pause.paused).toBe(false);
});

it('a vLLM that does not know the question is asked once a minute', async () => {
  const { pause, seen, run } = asking(() => ({ status: 404, body: '{"detail":"Not Found"}' }));
  await run(59);
  expect(seen.asked).toBe(1);
  await run(60);
  expect(seen.asked).toBe(2);
  expect(pause.paused).toBe(false);
});

it('an answer that is none changes nothing', async () => {
  const bodies = ['{"is_paused":true}', '<html>', '{"is_paused":"no"}'];
  const { pause, run } = asking(() => ({ status: 200, body: bodies.shift() ?? '' }));
  await run(5);
  expect(pause.paused).toBe(true);
});
