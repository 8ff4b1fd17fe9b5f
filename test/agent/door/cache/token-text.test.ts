import { describe, expect, test } from 'vitest';
import { Alignment, locate, tokenBytes, Vocabulary } from '../../../../agent/door/cache/token-text.ts';

describe('the bytes of a spelling', () => {
  test.each([
    ['Ġthe', ' the'],
    ['Ċ', '\n'],
    ['Ã¼', 'ü'],
    ['▁the', ' the'],
    ['▁▁▁', '   '],
    ['<0x0A>', '\n'],
    ['plain', 'plain'],
    // No character of the byte-level map: the text itself.
    ['<|im_start|>', '<|im_start|>'],
    ['日本', '日本'],
    ['', ''],
  ])('%s', (spelling, text) => {
    expect(tokenBytes(spelling).toString()).toBe(text);
  });

  test('every byte of a byte-level and of a byte-fallback tokenizer', () => {
    expect(tokenBytes('<0xff>')).toEqual(Buffer.from([255]));
    expect(tokenBytes('\u0100')).toEqual(Buffer.from([0]));
    expect(tokenBytes('ÿ')).toEqual(Buffer.from([255]));
  });

  test('a vocabulary keeps what it learned first', () => {
    const vocabulary = new Vocabulary();
    vocabulary.learn(7, 'Ġthe');
    vocabulary.learn(7, 'other');
    expect(vocabulary.get(7)!.toString()).toBe(' the');
    expect([vocabulary.get(8), vocabulary.size]).toEqual([undefined, 1]);
    vocabulary.clear();
    expect(vocabulary.size).toBe(0);
  });
});

/** Tokens before the ends of byte blocks, as the alignment tells them. */
function reached(alignment: Alignment, tokens: (string | undefined)[]): [number, number][] {
  const ends: [number, number][] = [];
  alignment.feed(pieces(tokens), (block, before) => ends.push([block, before]));
  return ends;
}

function pieces(tokens: (string | undefined)[]): (Buffer | undefined)[] {
  return tokens.map((token) => (token === undefined ? undefined : Buffer.from(token)));
}

/** Eight bytes each, all different. */
function words(count: number, from = 0): string[] {
  return Array.from({ length: count }, (_, at) => ` word${100 + from + at}`);
}

describe('tokens along a text', () => {
  test('are counted to the end of each byte block', () => {
    const alignment = new Alignment(Buffer.from(words(20).join('')));
    expect(reached(alignment, words(20))).toEqual([
      [0, 8],
      [1, 16],
    ]);
    expect([alignment.tokens, alignment.found, alignment.straight]).toEqual([20, 20, 20]);
    expect(alignment.tokensAt()[64]).toBe(8);
    expect(alignment.tokensAt()[65]).toBeNaN();
  });

  test('go on over several calls, and from the middle of a prompt', () => {
    const text = Buffer.from(words(24).join(''));
    const alignment = new Alignment(text, 32, 4);
    expect(reached(alignment, words(3, 4))).toEqual([]);
    expect(reached(alignment, words(9, 7))).toEqual([
      [0, 8],
      [1, 16],
    ]);
  });

  test('pass over the tokens of a chat template, and over the markers that stand for it', () => {
    const text = Buffer.from(`\u0001system\u0002${words(8).join('')}\u0001user\u0002${words(8, 8).join('')}`);
    const alignment = new Alignment(text);
    const tokens = [
      '<|im_start|>',
      'system',
      '\n',
      ...words(8),
      '<|im_end|>',
      '\n',
      '<|im_start|>',
      'user',
      '\n',
      ...words(8, 8),
      '<|im_end|>',
    ];
    reached(alignment, tokens);
    expect(alignment.tokensAt()[text.indexOf(' word100')]).toBe(3);
    expect(alignment.tokensAt()[text.indexOf(' word108')]).toBe(16);
    expect(alignment.found).toBeGreaterThanOrEqual(16);
    expect(alignment.tokens).toBe(tokens.length);
  });

  test('of unknown text count, and lie between their neighbours', () => {
    const tokens: (string | undefined)[] = words(16);
    tokens[5] = tokens[6] = undefined;
    const alignment = new Alignment(Buffer.from(words(16).join('')));
    expect(reached(alignment, tokens)).toEqual([
      [0, 8],
      [1, 16],
    ]);
    expect([alignment.found, alignment.tokens]).toEqual([14, 16]);
  });

  test('that are of another text are lost, and found again where it goes on', () => {
    const text = Buffer.from([...words(8), ...words(24, 50)].join(''));
    const alignment = new Alignment(text);
    reached(alignment, [...words(8), ...words(30, 300), ...words(24, 50)]);
    expect(alignment.found).toBeGreaterThanOrEqual(24);
    expect(alignment.tokens).toBe(62);
    expect(alignment.tokensAt()[text.length]).toBe(62);
  });
});

describe('the place of tokens in a text', () => {
  const text = Buffer.from(words(100).join(''));

  test('is found near where it is expected', () => {
    expect(locate(pieces(words(16, 40)), text, 300, false)).toEqual({ piece: 0, byte: 320, found: 1 });
    expect(locate(pieces(words(16)), text, 0, true)).toEqual({ piece: 0, byte: 0, found: 1 });
  });

  test('is found by the first tokens that are known', () => {
    const tokens = pieces([undefined, undefined, ...words(14, 42)]);
    expect(locate(tokens, text, 320, false)).toEqual({ piece: 2, byte: 336, found: 1 });
  });

  test('is absent where the text is another, or too far off', () => {
    expect(locate(pieces(words(16, 500)), text, 320, false)).toBe('absent');
    expect(locate(pieces(words(16, 500)), text, 0, true)).toBe('absent');
    expect(locate(pieces(words(16, 80)), text, 0, false)).toBe('absent');
  });

  test('is unknown where hardly a token is', () => {
    expect(locate(pieces([...words(7), undefined, undefined]), text, 0, true)).toBe('unknown');
    expect(locate([], text, 0, true)).toBe('unknown');
  });

  test('is, of several that look alike, the one where most follows', () => {
    const twice = Buffer.from([...words(4), ' and', ...words(4, 4), ...words(4), ...words(8, 20)].join(''));
    const place = locate(pieces([...words(4), ...words(8, 20)]), twice, 0, false);
    expect(place).toEqual({ piece: 0, byte: 68, found: 1 });
  });
});
