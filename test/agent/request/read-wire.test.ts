import { expect, test } from 'vitest';
import { decodeRead, encodeRead } from '../../../agent/request/read-wire.ts';
import { readRequest } from '../../helpers/read-request.ts';

const client = readRequest(
  '/v1/completions',
  {},
  '{"model":"m","prompt":[[1,2],[3]],"n":2,"stream":true,"max_tokens":5,"cache_salt":"ü","priority":-2}',
);

test('what was read travels', () => {
  const { model, stream, usageSplice, promptBytes, promptEnd, maxTokens, sequences, priority, cacheSalt } = client;
  expect({ sequences, usageSplice }).toMatchObject({ sequences: 4, usageSplice: { start: 1, end: 1 } });
  expect(decodeRead(encodeRead(client))).toEqual({
    model,
    stream,
    usageSplice,
    promptBytes,
    promptEnd,
    maxTokens,
    sequences,
    priority,
    cacheSalt,
  });
});

test('what is absent stays absent', () => {
  expect(decodeRead(encodeRead(readRequest('/v1/x', {}, '{}')))).toMatchObject({
    model: undefined,
    usageSplice: undefined,
  });
});

test('what is too long for a header is left to the door', () => {
  expect(encodeRead({ ...client, model: 'm'.repeat(4000) })).toBeUndefined();
  expect(encodeRead({ ...client, model: 'm'.repeat(2000) })?.length).toBeLessThanOrEqual(4096);
});

test('a header that is not valid says nothing', () => {
  const wrong = (changes: object): string =>
    Buffer.from(JSON.stringify({ ...client, ...changes })).toString('base64url');
  for (const text of [
    undefined,
    '',
    'x',
    'e30',
    '{}',
    'x'.repeat(5000),
    wrong({ promptEnd: -1 }),
    wrong({ promptEnd: 1e300 }),
    wrong({ stream: 'yes' }),
    wrong({ usageSplice: { start: 2, end: 1, text: '' } }),
  ]) {
    expect(decodeRead(text)).toBeUndefined();
  }
});
