import { expect, test } from 'vitest';
import { isFleetToken } from '../../shared/token.ts';

const TOKEN = 'a-token-of-the-fleet';

test.each([`Bearer ${TOKEN}`, `bearer ${TOKEN}`, `BEARER   ${TOKEN}`])('takes "%s"', (header) => {
  expect(isFleetToken(header, TOKEN)).toBe(true);
});

test.each([
  undefined,
  '',
  'Bearer',
  'Bearer ',
  TOKEN,
  `Bearer${TOKEN}`,
  `Bearer\t${TOKEN}`,
  ` Bearer ${TOKEN}`,
  `Basic ${TOKEN}`,
  `Bearer ${TOKEN.toUpperCase()}`,
  `Bearer ${TOKEN.slice(1)}`,
  `Bearer ${TOKEN}x`,
  `Bearer ${TOKEN} `,
  `Bearer ${TOKEN} ${TOKEN}`,
])('refuses "%s"', (header) => {
  expect(isFleetToken(header, TOKEN)).toBe(false);
});
