import { expect, test } from 'vitest';
import { OutputEstimate } from '../../../agent/entry/output-estimate.ts';
import { readRequest } from '../../helpers/read-request.ts';
import { tableOf } from '../../helpers/tables.ts';

const JSON_TYPE = { 'content-type': 'application/json' };

function request(body: object, headers: Record<string, string> = {}) {
  return readRequest(
    '/v1/completions',
    { ...JSON_TYPE, ...headers },
    JSON.stringify({ model: 'm', prompt: 'x', ...body }),
  );
}

test('starts from the mean of the model in the fleet, then of the fleet', () => {
  const estimate = new OutputEstimate();
  expect(estimate.expect(request({}))).toBe(200);
  estimate.applyTable(tableOf({ meanOutputTokens: { fleet: 300, models: { m: 40 } } }));
  expect(estimate.expect(request({}))).toBe(40);
  expect(estimate.expect(request({ model: 'constructor' }))).toBe(300);
});

test('learns each client, by user field or credential, and leaves the others alone', () => {
  const estimate = new OutputEstimate();
  for (let i = 0; i < 120; i++) {
    estimate.learn(request({ user: 'long' }), 1000);
    estimate.learn(request({}, { authorization: 'Bearer short' }), 10);
  }
  expect(estimate.expect(request({ user: 'long' }))).toBeGreaterThan(750);
  expect(estimate.expect(request({}, { authorization: 'Bearer short' }))).toBeLessThan(70);
  expect(estimate.expect(request({ user: 'other' }))).toBe(200);
});

test('is bounded by max_tokens, and learns calls of another bound apart', () => {
  const estimate = new OutputEstimate();
  expect(estimate.expect(request({ max_tokens: 16 }))).toBe(16);
  for (let i = 0; i < 120; i++) estimate.learn(request({ max_tokens: 1000 }), 900);
  expect(estimate.expect(request({ max_tokens: 1000 }))).toBeGreaterThan(700);
  expect(estimate.expect(request({}))).toBe(200);
});

test('keeps no credential', () => {
  expect(request({}, { authorization: 'Bearer secret-of-a-client' }).client).not.toContain('secret');
});
