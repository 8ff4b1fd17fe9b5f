import { expect, test } from 'vitest';
import { CacheView } from '../../../agent/door/cache/cache-view.ts';
import { GuardedCache } from '../../../agent/door/guarded-cache.ts';
import { LawFit } from '../../../agent/door/law/law-fit.ts';
import { Ledger } from '../../../agent/door/ledger.ts';
import type { LedgerPrompt } from '../../../agent/request/prompt.ts';
import { GENERIC_LAW } from '../../../shared/predictor/step-law.ts';
import { logSpy } from '../../helpers/log-spy.ts';
import { VirtualClock } from '../../helpers/virtual-clock.ts';

const LIMITS = { kvTokens: 16_000, blockTokens: 16, maxNumSeqs: 8, maxBatchedTokens: 2048 };
const PROMPT: LedgerPrompt = {
  hashes: Float64Array.from([11, 12, 13]),
  end: [1, 2],
  text: Buffer.alloc(200, 'text '),
  model: 'm',
  cacheSalt: '',
  promptTokens: 50,
  tokensPerBlock: 16,
  exactTokens: false,
  stream: true,
  sequences: 1,
  computed: true,
};
const METHODS = [
  'look',
  'claimTokens',
  'admit',
  'grow',
  'preempt',
  'cancel',
  'finish',
  'setEventsLive',
  'setSize',
  'setCaching',
  'resetCached',
  'requestReset',
  'drainDelta',
  'figures',
] as const;
const GETTERS = ['usedTokens', 'blockCount', 'hasDelta'] as const;

function rig() {
  const clock = new VirtualClock();
  const { log, lines } = logSpy();
  const view = new CacheView(clock, LIMITS.kvTokens, LIMITS.blockTokens, undefined);
  const cleared = { times: 0 };
  const cache = new GuardedCache(view, { clock, log }, 'i', () => (cleared.times += 1));
  const ledger = new Ledger(clock, cache, new LawFit(GENERIC_LAW), LIMITS);
  return { clock, view, cache, ledger, lines, cleared };
}

/** One request from its opening to its end. */
function serve(ledger: Ledger): void {
  const request = ledger.open(PROMPT);
  ledger.tokens(request, 1);
  ledger.tokens(request, 3);
  ledger.totals();
  ledger.close(request, { outputTokens: 4, cachedTokens: 0, promptTokens: 50 });
}

function broken(): never {
  throw new Error('a hole in the account');
}

test.each([...METHODS, ...GETTERS])('where %s of the account throws, requests go on', (name) => {
  const { view, cache, ledger, lines, cleared } = rig();
  serve(ledger);
  Object.defineProperty(
    view,
    name,
    (GETTERS as readonly string[]).includes(name) ? { get: broken } : { value: broken },
  );
  for (let i = 0; i < 20; i++) serve(ledger);
  cache.setEventsLive(false);
  cache.setSize(8000, 16);
  cache.setCaching(true);
  cache.resetCached();
  cache.requestReset();
  expect(cache.hasDelta).toBeTypeOf('boolean');
  expect(cache.blockCount).toBeTypeOf('number');
  cache.drainDelta();
  expect(ledger.totals()).toMatchObject({ inFlight: 0, waiting: 0 });
  expect(cache.figures().blocks).toBeTypeOf('number');
  if (name === 'preempt' || name === 'cancel') return;
  expect(cache.figures().problem).toContain('a hole in the account');
  expect(lines.filter(({ msg }) => msg.includes('the account of the cache failed'))).toHaveLength(1);
  expect(cleared.times).toBe(1);
});

test('an account that failed once begins anew and counts again', () => {
  const { clock, view, cache, ledger, cleared } = rig();
  serve(ledger);
  expect(cache.blockCount).toBeGreaterThan(0);
  const look = view.look.bind(view);
  view.look = broken;
  const failed = ledger.open(PROMPT);
  expect(failed.look).toMatchObject({ hitTokens: 0, promptTokens: 50 });
  expect(cache.blockCount).toBe(3);
  view.look = look;
  ledger.close(failed, undefined, false);
  expect(cleared.times).toBe(1);
  expect(cache.figures().problem).toContain('began anew');
  clock.advance(600_000);
  serve(ledger);
  expect(ledger.open(PROMPT).look.hitTokens).toBe(48);
  expect(cache.figures().problem).not.toContain('began anew');
});

test('an account that cannot even be emptied leaves requests alone', () => {
  const { view, ledger, lines } = rig();
  Object.assign(view, { look: broken, admit: broken, finish: broken, grow: broken, clear: broken });
  for (let i = 0; i < 5; i++) serve(ledger);
  ledger.reset();
  expect(lines.filter(({ level }) => level === 50).length).toBeLessThanOrEqual(3);
});
