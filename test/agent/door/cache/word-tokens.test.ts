import { expect, test } from 'vitest';
import { Alignment } from '../../../../agent/door/cache/token-text.ts';
import { WordTokens } from '../../../../agent/door/cache/word-tokens.ts';

/** Learns a text from its tokens. */
function learned(...texts: string[][]): WordTokens {
  const words = new WordTokens();
  for (const tokens of texts) {
    const text = Buffer.from(tokens.join(''));
    const alignment = new Alignment(text);
    alignment.feed(
      tokens.map((token) => Buffer.from(token)),
      () => undefined,
    );
    words.learn(text, alignment.tokensAt());
  }
  return words;
}

test('without anything learned, the fallback lays out the text', () => {
  const words = new WordTokens();
  expect(words.isEmpty).toBe(true);
  expect([...words.estimate(Buffer.from('a'.repeat(150)), 0, 64, 0.25)]).toEqual([16, 32, 37.5]);
  expect([...words.estimate(Buffer.from('a'.repeat(150)), 64, 64, 0.25)]).toEqual([16, 21.5]);
  expect([...words.estimate(Buffer.alloc(0), 0, 64, 0.25)]).toEqual([0]);
});

test('words have the tokens that they had; new ones have as many a byte as words have', () => {
  const words = learned(['the', ' un', 'believ', 'able', ' cat']);
  expect([...words.estimate(Buffer.from('the cat unbelievable'), 0, 64, 1)]).toEqual([5]);
  const [tokens] = words.estimate(Buffer.from('the zzzzzzz'), 0, 64, 1);
  expect(tokens).toBeGreaterThan(2);
  expect(tokens).toBeLessThan(4);
});

test('a message’s marker has the tokens of the template that it stands for', () => {
  const words = new WordTokens();
  const text = Buffer.from('\u0001user\u0002hello there');
  const tokensAt = new Float64Array(text.length + 1).fill(NaN);
  for (const [byte, tokens] of [
    [0, 0],
    [6, 5],
    [11, 6],
    [17, 7],
  ])
    tokensAt[byte as number] = tokens as number;
  words.learn(text, tokensAt);
  expect([...words.estimate(Buffer.from('\u0001user\u0002hello there there'), 0, 64, 1)]).toEqual([8]);
  expect([...words.estimate(Buffer.from('\u0001user\u0002hello\u0001user\u0002hello'), 0, 64, 1)]).toEqual([12]);
});

test('places that are not known are not learned from', () => {
  const words = new WordTokens();
  const text = Buffer.from('some words here');
  words.learn(text, new Float64Array(text.length + 1).fill(NaN));
  expect(words.isEmpty).toBe(true);
});

test('of a long text, the rest is taken to be like its beginning', () => {
  const words = learned(['word', ' word']);
  const text = Buffer.from(' word'.repeat(20_000));
  const ends = words.estimate(text, 0, 64, 9);
  expect(ends.length).toBe(Math.floor(text.length / 64) + 1);
  expect(ends.at(-1)).toBeCloseTo(20_000, 3);
  expect(ends[800]).toBeCloseTo((801 * 64) / 5, 3);
});
