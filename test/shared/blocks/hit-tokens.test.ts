import { expect, test } from 'vitest';
import { engineHitTokens } from '../../../shared/blocks/hit-tokens.ts';

test.each([
  [0, 100, 0],
  [16, 100, 16],
  [31, 100, 16],
  [96, 96, 80],
  [96, 97, 96],
  [500, 64, 48],
  [5, 1, 0],
  [0, 0, 0],
])('%i matched of %i prompt tokens are %i to the engine', (matched, prompt, expected) => {
  expect(engineHitTokens(matched, prompt, 16)).toBe(expected);
});
