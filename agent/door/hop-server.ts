import type { ServerResponse } from 'node:http';
import { ClientAnswer } from '../wire/client-answer.ts';
import { deliver } from './deliver.ts';
import type { DoorInstance } from './door-instance.ts';
import { FAILURE_HEADER, type Hop, REPORT_HEADER, USAGE_HEADER } from '../wire/hop.ts';
import { encodeReport } from '../wire/report-wire.ts';
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
 * Delivers a request that another entry has routed here; settles when it is over. The answer's headers carry the door's
 * load report; a failure of the door or engine is marked, so that the entry may try elsewhere.
 */
export function serveHop(
  host: HopHost,
  door: DoorInstance,
  hop: Hop,
  client: ClientRequest,
  response: ServerResponse,
): Promise<void> {
  const answer = new ClientAnswer(response);
  const { method, path, body, usageSplice } = client;
  const request = { method, path, headers: passableHeaders(client.headers), body, usageSplice };
  const attempt = deliver(door, request, ledgerPrompt(host, client, printOf(host, client)), hop, {
    onHeaders(status, headers) {
      const added = headers[USAGE_HEADER];
      answer.begin(status, headers, {
        ...(added === undefined ? {} : { [USAGE_HEADER]: String(added) }),
        ...reportHeader(door, host.draining),
      });
      // The entry reads the report now, long before the first token.
      response.flushHeaders();
    },
    onData: (chunk) => answer.write(chunk),
    onEnd: () => answer.end(),
    onFailure({ failure, error }) {
      // The entry must see that the answer is incomplete, and tells its client. One that watches its doors reads trailers.
      if (answer.begun) answer.breakOff(hop.watched ? { [FAILURE_HEADER]: failure } : undefined);
      else
        answer.fail(502, 'BadGatewayError', error.message, {
          headers: { [FAILURE_HEADER]: failure, ...reportHeader(door, host.draining) },
        });
    },
  });
  return new Promise((resolve) => {
    const onGone = (): void => {
      if (!answer.finished) attempt.abort();
      answer.unwatch(onGone, onDrain);
      resolve();
    };
    const onDrain = (): void => attempt.resume();
    answer.watch(onGone, onDrain);
    if (answer.gone) onGone();
  });
}

function reportHeader(door: DoorInstance, draining: boolean): Record<string, string> {
  const text = encodeReport(door.report(draining));
  return text ? { [REPORT_HEADER]: text } : {};
}
