import { realClock } from '../../../../shared/env.ts';
import { expect, test } from 'vitest';
import { fingerprint } from '../../../../agent/request/fingerprint.ts';
import { CacheView } from '../../../../agent/door/cache/cache-view.ts';
import type { CachePrompt } from '../../../../agent/request/prompt.ts';
import { TokenProbe } from '../../../../agent/door/cache/token-probe.ts';
import { Upstream } from '../../../../agent/wire/upstream.ts';
import { VirtualClock } from '../../../helpers/virtual-clock.ts';

function promptOf(words: string): CachePrompt {
  const text = Buffer.from(words);
  const { hashes, end } = fingerprint(text, { salt: '', model: 'm', cacheSalt: '' });
  return {
    hashes,
    end,
    text,
    model: 'm',
    cacheSalt: '',
    promptTokens: Math.round(text.length / 4),
    tokensPerBlock: 16,
    exactTokens: false,
  };
}

function serve(
  view: CacheView,
  prompt: CachePrompt,
  promptTokens: number | undefined,
  outputTokens = 5,
  answer?: Buffer,
): void {
  const look = view.look(prompt);
  view.finish(
    view.admit(prompt, look, 0),
    { promptTokens, outputTokens, cachedTokens: 0, answer, source: undefined },
    look,
  );
}

function added(view: CacheView): number {
  return view.drainDelta().add.length;
}

test.each([
  [NaN, 16],
  [16_000, 0],
  [1e12 * 16, 16],
  [8, 16],
])('a cache of %d tokens in blocks of %d is none: what was known stays', (kvTokens, blockTokens) => {
  const view = new CacheView(new VirtualClock(), 16_000, 16, undefined);
  serve(view, promptOf('words '.repeat(200)), 300);
  view.setSize(kvTokens, blockTokens);
  expect(view.figures()).toMatchObject({ source: 'estimate' });
  expect(view.blockCount).toBeGreaterThan(10);
});

test('a prompt of which the engine has seen only a part is not believed cached', () => {
  const view = new CacheView(new VirtualClock(), 16_000, 16, undefined);
  for (let i = 0; i < 50; i++) serve(view, promptOf(`${i} ${'words '.repeat(2000)}`), 17);
  expect(added(view)).toBe(0);
});

test('counts that no engine can have leave the view as it is', () => {
  const view = new CacheView(new VirtualClock(), 16_000, 16, undefined);
  const prompt = promptOf('words '.repeat(200));
  serve(view, prompt, 300);
  const before = view.look(prompt).hitTokens;
  serve(view, promptOf('other '.repeat(20)), 1e9);
  serve(view, promptOf('third '.repeat(20)), 30, 1e9);
  serve(view, promptOf('fourth '.repeat(20)), 30, 5, Buffer.alloc(100_000, 'x'));
  expect(view.look(prompt).hitTokens).toBe(before);
  expect(view.figures().hitRatio).toBeLessThanOrEqual(1);
  expect(view.blockCount).toBeLessThan(60);
});

test('a request that is not JSON, or not of a text route, is not asked about', async () => {
  const upstream = new Upstream('http://127.0.0.1:9', 1000, realClock);
  const probe = new TokenProbe(upstream, new VirtualClock(), undefined);
  const ask = (path: string, body: string) => probe.ask({ path, headers: {}, body: [Buffer.from(body)] });
  expect(await ask('/v1/completions', '{"prompt":"x","y":NaN}')).toBeUndefined();
  expect(await ask('/v1/audio/transcriptions', '--boundary')).toBeUndefined();
  expect(probe.isReady).toBe(true);
  await upstream.close();
});
