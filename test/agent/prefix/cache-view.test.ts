import { describe, expect, test } from 'vitest';
import { EngineDoor } from '../../helpers/engine-door.ts';
import { below } from '../../helpers/random.ts';

describe('the account of the engine\'s blocks', () => {
  test.each([[4096, 0.9], [8192, 1], [24_000, 1]])('finds what the engine finds, with sessions that grow and a cache of %i tokens: within one block for a share of %d', (kvTokens, least) => {
    const door = new EngineDoor('A30', { kvTokens, seed: 5 });
    const system = door.prompt(200);
    const sessions = Array.from({ length: 12 }, () => door.prompt(1200));
    const turns = sessions.map(() => 0);
    const seen: { hit: number; real: number }[] = [];
    door.traffic(120_000, 4, () => {
      const which = below(door.rng, sessions.length);
      const turn = (turns[which] = ((turns[which] as number) + 1) % 12);
      const prompt = Int32Array.from([...system, ...(sessions[which] as Int32Array).subarray(0, 60 + turn * 90)]);
      const { entry, request } = door.send(prompt, 5 + below(door.rng, 60));
      seen.push({ hit: entry.hitTokens, get real() { return Math.max(0, request.hitTokens); } });
    });
    door.clock.advance(60_000);
    const right = seen.filter(({ hit, real }) => Math.abs(hit - real) <= 16);
    expect(seen.length).toBeGreaterThan(400);
    expect(right.length / seen.length).toBeGreaterThanOrEqual(least);
  });
});
