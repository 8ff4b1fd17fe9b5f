import { describe, expect, it } from 'vitest';
import { seededRng } from '../../../shared/env.ts';
import { chatPrompt } from '../../../sim/engine/http/prompt.ts';
import { outputToken, wordOf } from '../../../sim/engine/output-text.ts';
import { detokenize, tokenize } from '../../../sim/engine/tokenizer.ts';

const ENGLISH =
  'The request path never waits for the brain. When the brain is away, agents keep routing on the last table, also after their own restart, ' +
  'and keep state fresh themselves: every door answer carries its load report in a response header.';

describe('tokenizer', () => {
  it('takes about four bytes a token in English, and gives the text back', () => {
    const ids = tokenize(ENGLISH);
    expect(ENGLISH.length / ids.length).toBeGreaterThan(3.4);
    expect(ENGLISH.length / ids.length).toBeLessThan(5);
    expect(detokenize(ids)).toBe(ENGLISH);
  });

  it('keeps all tokens but the last when a text goes on', () => {
    const rng = seededRng(5);
    const alphabet = [
      'a',
      'b',
      'Z',
      '7',
      ' ',
      ' ',
      '  ',
      '\n',
      '.',
      '...',
      ',',
      'é',
      'я',
      '漢',
      '😀',
      '{"',
      '\t',
      '    ',
    ];
    for (let round = 0; round < 500; round++) {
      const pieces = Array.from({ length: 40 }, () => alphabet[Math.floor(rng() * alphabet.length)]!);
      const whole = tokenize(pieces.join(''));
      for (let cut = 1; cut < pieces.length; cut += 3) {
        const part = tokenize(pieces.slice(0, cut).join(''));
        expect(whole.slice(0, part.length - 1)).toEqual(part.slice(0, -1));
      }
    }
  });

  it('reads its own output back to the same ids, in completions and in chats', () => {
    for (const seed of [0, 1, 123456789, -1, -77777]) {
      const ids = Array.from({ length: 300 }, (_, i) => outputToken(seed, i));
      const text = ids.map((id) => wordOf(id).text).join('');
      expect(tokenize(text)).toEqual(ids);
      expect(text.startsWith(' ')).toBe(seed >= 0);
    }
  });

  it('keeps the tokens of earlier turns of a chat', () => {
    const answer = Array.from({ length: 50 }, (_, i) => outputToken(-5, i));
    const first = [{ role: 'user', content: 'What is a lodestar?' }];
    const prompt = Array.from(chatPrompt(first));
    const second = [
      ...first,
      { role: 'assistant', content: answer.map((id) => wordOf(id).text).join('') },
      { role: 'user', content: 'More.' },
    ];
    expect(Array.from(chatPrompt(second)).slice(0, prompt.length + answer.length)).toEqual([...prompt, ...answer]);
  });
});
