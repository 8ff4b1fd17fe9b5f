import { describe, expect, test } from 'vitest';
import { EngineDoor } from '../../../helpers/engine-door.ts';
import { engineHitTokens } from '../../../../shared/blocks/hit-tokens.ts';
import { CacheView } from '../../../../agent/door/cache/cache-view.ts';
import type { TokenizedPrompt, TokenProbe } from '../../../../agent/door/cache/token-probe.ts';
import type { Vocabulary } from '../../../../agent/door/cache/token-text.ts';
import { idsPrompt, textPrompt } from '../../../helpers/cache-rig.ts';
import { below } from '../../../helpers/random.ts';
import { VirtualClock } from '../../../helpers/virtual-clock.ts';

describe("the account of the engine's blocks", () => {
  test.each([
    [4096, 0.9],
    [8192, 1],
    [24_000, 1],
  ])(
    'finds what the engine finds, with sessions that grow and a cache of %i tokens: within one block for a share of %d',
    (kvTokens, least) => {
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
        seen.push({
          hit: entry.hitTokens,
          get real() {
            return Math.max(0, request.hitTokens);
          },
        });
      });
      door.clock.advance(60_000);
      const right = seen.filter(({ hit, real }) => Math.abs(hit - real) <= 16);
      expect(seen.length).toBeGreaterThan(400);
      expect(right.length / seen.length).toBeGreaterThanOrEqual(least);
    },
  );
});

describe('the view', () => {
  const prompt = idsPrompt(Array.from({ length: 64 }, (_, at) => at));

  /** Sends the prompt; the engine finds `cachedTokens`. */
  function pass(view: CacheView, cachedTokens: number): number {
    const look = view.look(prompt);
    view.finish(
      view.admit(prompt, look, 0),
      { promptTokens: 64, outputTokens: 1, answer: undefined, cachedTokens, source: undefined },
      look,
    );
    return look.hitTokens;
  }

  test('forgets the texts of tokens with the engine that had them, those still on their way too', async () => {
    const text = textPrompt('abcdef'.repeat(40));
    const pending: ((tokens: TokenizedPrompt) => void)[] = [];
    const probe = {
      isReady: true,
      problem: '',
      reset: () => undefined,
      ask: () => new Promise<TokenizedPrompt>((resolve) => pending.push(resolve)),
    };
    const view = new CacheView(new VirtualClock(), 1600, 16, probe as unknown as TokenProbe);
    const vocabulary = Reflect.get(view, 'vocabulary') as Vocabulary;
    const ask = (): void => {
      const look = view.look(text);
      const source = { path: '/v1/completions', headers: {}, body: [Buffer.from('{}')] };
      for (let n = 0; n < 64; n++)
        view.finish(
          view.admit(text, look, 0),
          { promptTokens: 40, outputTokens: 1, answer: undefined, cachedTokens: 0, source },
          look,
        );
    };
    const answer = async (): Promise<void> => {
      for (const resolve of pending.splice(0))
        resolve({
          ids: Array.from({ length: 40 }, (_, i) => i),
          spellings: Array.from({ length: 40 }, () => 'abcdef'),
        });
      for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
    };
    ask();
    await answer();
    expect(vocabulary.size).toBe(40);
    ask();
    view.clear();
    expect(vocabulary.size).toBe(0);
    await answer();
    expect(vocabulary.size).toBe(0);
  });

  test('says where it comes from, how good it is, and what is missing', () => {
    const view = new CacheView(new VirtualClock(), 1600, 16, undefined);
    expect(view.figures()).toMatchObject({
      source: 'estimate',
      problem: expect.stringMatching(/kvTokens/),
      blocks: 0,
      checked: 0,
    });
    view.setSize(1600, 16);
    expect(view.figures()).toMatchObject({ source: 'shadow', problem: '' });
    expect([pass(view, 0), pass(view, 48), pass(view, 0)]).toEqual([0, 48, 48]);
    expect(view.figures()).toMatchObject({
      source: 'shadow',
      blocks: 4,
      checked: 3,
      accuracyRatio: expect.closeTo(2 / 3, 9),
      hitRatio: 0.25,
    });
    view.events.begin(true);
    expect(view.figures().source).toBe('events');
    view.events.fail('garbage');
    expect(view.figures()).toMatchObject({ source: 'shadow', problem: 'garbage' });
  });

  test('forgets with a restart, a reset, or another size', () => {
    const view = new CacheView(new VirtualClock(), 1600, 16, undefined);
    for (const forget of [
      () => view.clear(),
      () => view.resetCached(),
      () => view.setSize(3200, 16),
      () => view.setSize(3200, 32),
    ]) {
      pass(view, 0);
      expect(view.look(prompt).hitTokens).toBeGreaterThan(0);
      forget();
      expect([view.look(prompt).hitTokens, view.blockCount, view.usedTokens]).toEqual([0, 0, 0]);
    }
  });

  test('an engine without prefix caching has nothing', () => {
    const view = new CacheView(new VirtualClock(), 1600, 16, undefined);
    view.setCaching(false);
    expect(pass(view, 0)).toBe(0);
    expect(pass(view, 0)).toBe(0);
    expect([view.blockCount, view.drainDelta()]).toEqual([0, { reset: true, add: [], tokens: [], remove: [] }]);
    expect(view.figures().problem).toMatch(/--no-enable-prefix-caching/);
    view.setCaching(true);
    expect(view.drainDelta().add.length).toBe(4);
  });

  test('a request that ended with what the engine forgot is no concern of the new one', () => {
    const view = new CacheView(new VirtualClock(), 1600, 16, undefined);
    const look = view.look(prompt);
    const sequence = view.admit(prompt, look, 0);
    view.clear();
    view.finish(
      sequence,
      { promptTokens: 64, outputTokens: 1, answer: undefined, cachedTokens: 0, source: undefined },
      look,
    );
    expect([view.usedTokens, view.blockCount, view.figures().checked]).toEqual([0, 0, 0]);
  });
});

test.each([
  [64, 64, 48],
  [64, 65, 64],
  [63, 200, 48],
  [0, 0, 0],
  [500, 100, 96],
])('%i tokens in common with a prompt of %i are %i to the engine', (matched, tokens, hit) => {
  expect(engineHitTokens(matched, tokens, 16)).toBe(hit);
});
