import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { send } from '../../helpers/http.ts';
import { allOver, failures, isWhole, shoot, type Shot } from '../faults/load.ts';
import { type Node, type RealFleet, view } from '../real-fleet.ts';
import { scrape } from '../scrape.ts';
import { until } from '../until.ts';

const POISON = {
  prompt: undefined,
  messages: [{ role: 'user', content: 'hello' }],
  structured_outputs: { grammar: 'root ::= ' },
};
const STOP_MS = 2000;

/** Faults that a server comes back from. `npm run bench:vllm-faults` measures them, and those that take longer. */
export function faultTests(fleet: () => RealFleet): void {
  describe('faults', () => {
    beforeAll(() => fleet().choosePolicy('round-robin'));
    afterAll(() => fleet().choosePolicy('learned'));

    it('a request that vLLM fails on gets vLLM’s own 500, and harms no other', async () => {
      await fleet().rest();
      const { near, far } = fleet();
      const good: Shot[] = [];
      for (let i = 0; i < 15; i++) {
        const url = (i % 2 ? near : far).url;
        good.push(shoot(url, { tokens: 4, stream: i % 3 === 0 }));
        const bad = shoot(url, { tokens: 4, path: '/v1/chat/completions', body: POISON });
        await bad.over;
        expect(bad).toMatchObject({ status: 500, cut: false, body: expect.stringContaining('"code":500') as string });
        for (const of of [near, far]) expect(view(near, of).report?.health).toBe('up');
      }
      await allOver(good);
      expect(failures(good)).toBe('');
    });

    it('a server that stands still for two seconds loses nothing, and computes nothing twice', async () => {
      await fleet().rest();
      const before = await generated(fleet());
      const shots = Array.from({ length: 12 }, () => shoot(fleet().far.url, { tokens: 60 }));
      await until('some run on near', async () => (await scrape(fleet().near.server.url)).running === 4);
      await stopped(fleet().near, () => sleep(STOP_MS));
      await allOver(shots);
      expect(failures(shots)).toBe('');
      await fleet().rest();
      expect((await generated(fleet())) - before).toBe(12 * 60);
    });

    it('a server that stands still for longer: others answer for it, and it comes back', async () => {
      await fleet().rest();
      const { near, far } = fleet();
      const shots: Shot[] = [];
      await stopped(near, async () => {
        for (let i = 0; i < 6; i++) shots.push(shoot((i % 2 ? near : far).url, { tokens: 20, stream: i % 3 === 0 }));
        await allOver(shots);
      });
      expect(failures(shots)).toBe('');
      for (const shot of shots) expect(shot.instance).toBe('far');
      await servesAgain(fleet());
    });

    it('a paused server: others answer for it, and it comes back', async () => {
      await fleet().rest();
      const { near, far } = fleet();
      expect((await send(`${near.server.url}/pause?mode=keep`, { method: 'POST' })).status).toBe(200);
      const shots = Array.from({ length: 6 }, (_, i) =>
        shoot((i % 2 ? near : far).url, { tokens: 20, stream: i % 3 === 0 }),
      );
      await allOver(shots);
      expect(failures(shots)).toBe('');
      for (const shot of shots) expect(shot.instance).toBe('far');
      expect(shots.every(isWhole)).toBe(true);
      expect((await send(`${near.server.url}/resume`, { method: 'POST' })).status).toBe(200);
      await servesAgain(fleet());
    });
  });
}

async function stopped(node: Node, during: () => Promise<unknown>): Promise<void> {
  node.server.freeze();
  try {
    await during();
  } finally {
    node.server.thaw();
  }
}

async function servesAgain({ near, far }: RealFleet): Promise<void> {
  for (const by of [near, far]) {
    await until('near answers again', async () => {
      const shot = shoot(by.url, { tokens: 1 });
      await shot.over;
      return isWhole(shot) && shot.instance === 'near';
    });
  }
}

async function generated({ near, far }: RealFleet): Promise<number> {
  const [a, b] = await Promise.all([scrape(near.server.url), scrape(far.server.url)]);
  return a.generationTokens + b.generationTokens;
}
