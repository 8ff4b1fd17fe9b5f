import { realClock } from '../../../shared/env.ts';
import { type AddressInfo, createServer } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Upstream } from '../../../agent/wire/upstream.ts';
import { StubVllm } from '../../helpers/stub-vllm.ts';

const PATH = '/v1/completions';
const PIECES = [Buffer.from('{"prompt":"'), Buffer.alloc(200_000, 'a'), Buffer.from('ü"}')];
const WHOLE = Buffer.concat(PIECES).toString();

let stub: StubVllm;
let upstream: Upstream;

beforeEach(async () => {
  stub = new StubVllm('m');
  upstream = new Upstream(await stub.listen(), 1000, realClock);
});

afterEach(async () => {
  await upstream.close();
  await stub.close();
});

/** Sends a body and waits for the end of its answer. */
function post(to: Upstream, body: readonly Buffer[]): Promise<'ended' | 'failed'> {
  return new Promise((resolve) => {
    to.dispatch(
      { method: 'POST', path: PATH, headers: { 'content-type': 'application/json' }, body },
      {
        onHeaders: () => undefined,
        onData: () => true,
        onEnd: () => resolve('ended'),
        onFailure: () => resolve('failed'),
      },
    );
  });
}

describe('a body in pieces', () => {
  test('goes out as one body of stated length, as often as it is sent', async () => {
    for (let round = 0; round < 2; round++) expect(await post(upstream, PIECES)).toBe('ended');
    for (const seen of stub.requests) {
      expect(seen.body).toBe(WHOLE);
      expect(seen.headers).toMatchObject({ 'content-length': String(Buffer.byteLength(WHOLE)) });
      expect(seen.headers['transfer-encoding']).toBeUndefined();
    }
    expect(stub.requests).toHaveLength(2);
  });

  test.each([
    ['none', []],
    ['one piece', [Buffer.from('{}')]],
  ])('%s', async (_name, body) => {
    expect(await post(upstream, body)).toBe('ended');
    expect(stub.requests[0]).toMatchObject({
      body: Buffer.concat(body).toString(),
      headers: { 'content-length': String(Buffer.concat(body).length) },
    });
  });

  test('is asked with in the same way', async () => {
    const { status } = await upstream.ask(
      { method: 'POST', path: PATH, headers: {}, body: PIECES },
      new AbortController().signal,
      1000,
    );
    expect([status, stub.requests[0]?.body]).toEqual([200, WHOLE]);
  });

  test('a connection that breaks in the middle of it is one error, and the same pieces can be sent again', async () => {
    const unhandled: unknown[] = [];
    const note = (reason: unknown): void => void unhandled.push(reason);
    process.on('unhandledRejection', note);
    const breaking = createServer((socket) => socket.once('data', () => socket.destroy()).on('error', () => undefined));
    await new Promise<void>((resolve) => breaking.listen(0, '127.0.0.1', resolve));
    const other = new Upstream(`http://127.0.0.1:${(breaking.address() as AddressInfo).port}`, 1000, realClock);
    const large = Array.from({ length: 200 }, () => Buffer.alloc(65_536, 'b'));
    expect(await post(other, large)).toBe('failed');
    expect(await post(upstream, large)).toBe('ended');
    expect(stub.requests[0]?.body.length).toBe(200 * 65_536);
    await other.close();
    await new Promise((resolve) => breaking.close(resolve));
    expect(unhandled).toEqual([]);
    process.off('unhandledRejection', note);
  });
});
