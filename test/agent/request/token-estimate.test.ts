import { expect, test } from 'vitest';
import { readRequest } from '../../helpers/read-request.ts';
import { TokenEstimate } from '../../../agent/request/token-estimate.ts';
import { tableOf } from '../../helpers/tables.ts';

const request = (body: object) => readRequest('/v1/completions', {}, JSON.stringify(body));

test("starts from four bytes a token, then the fleet's figure, then its own", () => {
  const tokens = new TokenEstimate();
  expect(tokens.bytesPerToken('m')).toBe(4);
  tokens.applyTable(tableOf({ bytesPerToken: { m: 5 } }));
  expect(tokens.bytesPerToken('m')).toBe(5);
  expect(tokens.bytesPerToken(undefined)).toBe(4);
  tokens.learn('m', 3000, 1000);
  expect(tokens.bytesPerToken('m')).toBe(3);
  for (let i = 0; i < 200; i++) tokens.learn('m', 6000, 1000);
  expect(tokens.bytesPerToken('m')).toBeCloseTo(6, 2);
});

test('token prompts are counted, text is estimated', () => {
  const tokens = new TokenEstimate();
  expect(tokens.promptTokens(request({ prompt: [1, 2, 3] }))).toBe(3);
  expect(tokens.promptTokens(request({ prompt: 'x'.repeat(401) }))).toBe(100);
});

test('short prompts and prompts without text teach nothing', () => {
  const tokens = new TokenEstimate();
  tokens.learn('m', 1000, 63);
  tokens.learn('m', 0, 1000);
  expect(tokens.bytesPerToken('m')).toBe(4);
});

test('a model that is named like a property of every object is a model like any other', () => {
  const tokens = new TokenEstimate();
  for (const name of ['constructor', '__proto__', 'toString']) expect(tokens.bytesPerToken(name)).toBe(4);
});

test('the number of models it remembers is bounded', () => {
  const tokens = new TokenEstimate();
  for (let i = 0; i < 1000; i++) tokens.learn(`m${i}`, 2000, 1000);
  expect(tokens.bytesPerToken('m0')).toBe(2);
  expect(tokens.bytesPerToken('m999')).toBe(4);
});
