import { beforeEach, describe, expect, test } from 'vitest';
import { HitCheck, isTruncated, plausible } from '../../../../agent/door/cache/hit-check.ts';
import type { CacheLook, CacheOutcome, PrefixNode, Sequence } from '../../../../agent/door/cache/records.ts';
import type { CachePrompt } from '../../../../agent/request/prompt.ts';
import { CacheRig, idsPrompt, layoutOf, textPrompt } from '../../../helpers/cache-rig.ts';

const BLOCK_TOKENS = 16;
const NOTHING: CacheOutcome = {
  promptTokens: undefined,
  outputTokens: undefined,
  cachedTokens: undefined,
  answer: undefined,
  source: undefined,
};

let rig: CacheRig;
let hits: HitCheck;

beforeEach(() => {
  rig = new CacheRig();
  hits = new HitCheck(rig.tree);
});

/** Compares a prediction of `hitTokens` with `cachedTokens`. */
function compare(sequence: Sequence, hitTokens: number, cachedTokens: number | undefined, hit?: PrefixNode): boolean {
  const look: CacheLook = { ...layoutOf(sequence.prompt), hitTokens, hit };
  return hits.compare(sequence, { ...NOTHING, cachedTokens }, look, BLOCK_TOKENS);
}

describe('the figures', () => {
  const prompt = idsPrompt(Array.from({ length: 64 }, (_, at) => at));

  test('are those of the answers that reported cached tokens', () => {
    const sequence = rig.admit(prompt);
    expect(compare(sequence, 48, undefined)).toBe(false);
    expect(hits.figures()).toEqual({ hitRatio: 0, accuracyRatio: 0, checked: 0 });
    for (const cachedTokens of [48, 32, 0]) compare(sequence, 48, cachedTokens);
    const hitRatio = expect.closeTo((48 + 32) / (3 * 64), 9) as number;
    expect(hits.figures()).toEqual({ hitRatio, accuracyRatio: expect.closeTo(2 / 3, 9) as number, checked: 3 });
  });

  test('start anew with another engine', () => {
    compare(rig.admit(prompt), 48, 48);
    hits.reset();
    expect(hits.figures()).toEqual({ hitRatio: 0, accuracyRatio: 0, checked: 0 });
  });
});

test('exact tokens help where the prediction was off and counts are estimates', () => {
  const [text, ids] = [
    rig.admit(textPrompt('words '.repeat(64))),
    rig.admit(idsPrompt(Array.from({ length: 64 }, (_, at) => at))),
  ];
  expect([compare(text, 64, 48), compare(text, 64, 0), compare(ids, 48, 0)]).toEqual([false, true, false]);
});

describe('the tail', () => {
  const prompt: CachePrompt = textPrompt('words '.repeat(64));

  test('is what the engine found beyond the last shared block', () => {
    const sequence = rig.admit(prompt);
    const hit = sequence.nodes[1] as PrefixNode;
    compare(sequence, 32, 48, hit);
    // The middle of the next engine block: 48 + 8 tokens, of which the node has 32.
    expect([hit.tail, rig.tree.defaultTail]).toEqual([24, expect.closeTo(0.02 * 24, 9)]);
  });

  test('is not learned from what lies farther off, nor for token ids', () => {
    const sequence = rig.admit(prompt);
    const hit = sequence.nodes[1] as PrefixNode;
    compare(sequence, 32, 192, hit);
    compare(sequence, 32, 0, sequence.nodes[3]);
    compare({ ...sequence, prompt: { ...prompt, exactTokens: true } }, 32, 48, hit);
    expect([hit.tail, rig.tree.defaultTail]).toEqual([NaN, 0]);
  });
});

test('answers that next turns do not find are taken as cached only now and then', () => {
  const sequence = rig.admit(textPrompt('words '.repeat(64)));
  const hit = sequence.nodes[5] as PrefixNode;
  hit.shadow.promptTokens = 32;
  compare(sequence, 96, 96, hit);
  expect(hits.believesAnswer(1)).toBe(true);
  for (let n = 0; n < 3; n++) compare(sequence, 96, 16, hit);
  expect([0, 1, 15, 16].map((finished) => hits.believesAnswer(finished))).toEqual([true, false, false, true]);
  for (let n = 0; n < 6; n++) compare(sequence, 96, 96, hit);
  expect(hits.believesAnswer(1)).toBe(true);
});

describe('a report', () => {
  const CACHE_TOKENS = 1024;
  const answer = Buffer.from('an answer');
  const report = (changes: Partial<CacheOutcome>): CacheOutcome => ({
    ...NOTHING,
    promptTokens: 100,
    outputTokens: 8,
    answer,
    ...changes,
  });
  const check = (changes: Partial<CacheOutcome>): CacheOutcome =>
    plausible(rig.admit(textPrompt('words '.repeat(64))), report(changes), CACHE_TOKENS);

  test('that can be true is taken as it is', () => {
    expect(check({ cachedTokens: 96 })).toEqual(report({ cachedTokens: 96 }));
  });

  test.each([[{ promptTokens: 1025 }], [{ outputTokens: 1025 }], [{ cachedTokens: 101 }]])(
    'of %o is void',
    (changes) => {
      expect(check(changes)).toEqual(NOTHING);
    },
  );

  test('with an answer that is too long for its tokens is taken without it', () => {
    expect(check({ outputTokens: 1, answer: Buffer.alloc(65) })).toEqual(
      report({ outputTokens: 1, answer: undefined }),
    );
  });

  test('of fewer tokens than the text can have is of another text', () => {
    const sequence = rig.admit(textPrompt('words '.repeat(64)));
    expect([5, 6, undefined].map((promptTokens) => isTruncated(sequence, report({ promptTokens })))).toEqual([
      true,
      false,
      false,
    ]);
  });
});
