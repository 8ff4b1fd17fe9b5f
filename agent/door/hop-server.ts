import type { IncomingMessage, ServerResponse } from 'node:http';
import { ClientAnswer } from '../wire/client-answer.ts';
import { deliver } from './deliver.ts';
import type { DoorInstance } from './door-instance.ts';
import { FAILURE_HEADER, type Hop, REPORT_HEADER } from '../wire/hop.ts';
import { encodeReport } from '../wire/report-wire.ts';
import { spliced } from '../request/json-splice.ts';
import { ledgerPrompt, printOf } from '../request/prompt.ts';
import type { ClientRequest } from '../request/read.ts';
import type { TokenEstimate } from '../request/token-estimate.ts';
import { passableHeaders } from '../wire/upstream.ts';

/** What a door needs of its agent to serve a hop. */
export interface HopHost {
  readonly salt: string;
  readonly draining: boolean;
  readonly tokens: TokenEstimate;
}

/**
 * Delivers a request that another entry has routed here; settles when it is over. The answer's headers carry the door's load report; a failure of the
 * door or engine is marked, so that the entry may try elsewhere.
 */
export function serveHop(host: HopHost, door: DoorInstance, hop: Hop, client: ClientRequest, incoming: IncomingMessage, response: ServerResponse): Promise<void> {
  const answer = new ClientAnswer(response);
  const request = { method: client.method, path: client.path, headers: passableHeaders(client.headers), body: spliced(client.body, client.usageSplice) };
  const attempt = deliver(door, request, ledgerPrompt(host, client, printOf(host, client)), hop, {
    onHeaders(status, headers) {
      answer.begin(status, headers, reportHeader(door, host.draining));
      // The entry reads the report now, long before the first token.
      response.flushHeaders();
    },
    onData: (chunk) => answer.write(chunk),
    onEnd: () => answer.end(),
    onError(error) {
      // Cut, not ended: the entry must see that the answer is incomplete, and tells its client.
      if (answer.begun) response.destroy();
      else answer.fail(502, 'BadGatewayError', error.message, { headers: { [FAILURE_HEADER]: 'engine', ...reportHeader(door, host.draining) } });
    },
  });
  response.on('drain', () => attempt.resume());
  response.on('close', () => {
    if (!response.writableFinished) attempt.abort();
  });
  return over(incoming, response);
}

/** Settles when an answer is over, or its connection is: behind another answer on the same connection, it does not close by itself. */
function over({ socket }: IncomingMessage, response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      socket.off('close', done);
      resolve();
    };
    response.on('close', done);
    socket.on('close', done);
    if (socket.destroyed || response.closed) done();
  });
}

function reportHeader(door: DoorInstance, draining: boolean): Record<string, string> {
  const text = encodeReport([door.report(draining)]);
  return text ? { [REPORT_HEADER]: text } : {};
}
