import { expect, test } from 'vitest';
import { alignPrompt } from '../../../../agent/door/cache/align-prompt.ts';
import { Alignment, Vocabulary } from '../../../../agent/door/cache/token-text.ts';

/** A long prompt in tokens of three bytes, each with a spelling of its own. */
function prompt(tokens: number) {
  const spellings = Array.from({ length: tokens }, (_, i) =>
    String.fromCharCode(97 + (i % 26), 97 + (Math.floor(i / 26) % 26), 97 + (Math.floor(i / 676) % 26)),
  );
  return { text: Buffer.from(spellings.join('')), tokenized: { ids: spellings.map((_, i) => i), spellings } };
}

test('tokens are found in turns as they are in one piece', async () => {
  const { text, tokenized } = prompt(9000);
  // Some tokens are of a template, which is not in the text.
  for (let i = 2040; i < 2056; i++) tokenized.spellings[i] = '<|x|>';
  const vocabulary = new Vocabulary();
  let turns = 0;
  const aligned = await alignPrompt(vocabulary, text, tokenized, () => {
    turns += 1;
    return false;
  });
  const whole = new Alignment(text);
  const ends = new Map<number, number>();
  whole.feed(
    tokenized.ids.map((id) => vocabulary.get(id)),
    (block, tokens) => ends.set(block, tokens),
  );
  expect(aligned).toEqual({ tokensAt: whole.tokensAt(), ends });
  expect(turns).toBeGreaterThan(8);
});

test('nothing more is learned once it is over, nor from a text that is another', async () => {
  const { text, tokenized } = prompt(9000);
  const vocabulary = new Vocabulary();
  expect(await alignPrompt(vocabulary, text, tokenized, () => true)).toBeUndefined();
  expect(vocabulary.size).toBe(2048);
  expect(
    await alignPrompt(new Vocabulary(), Buffer.from('something else '.repeat(1000)), tokenized, () => false),
  ).toBeUndefined();
});
