import type { ServerResponse } from 'node:http';
import { ClientAnswer } from '../wire/client-answer.ts';
import { deliver } from './deliver.ts';
import type { DoorInstance } from './door-instance.ts';
import type { LocalDoors } from './local-doors.ts';
import { FAILURE_HEADER, openHop, REPORT_HEADER, USAGE_HEADER } from '../wire/hop.ts';
import { encodeReport } from '../wire/report-wire.ts';
import { ledgerPrompt, printOf } from '../request/prompt.ts';
import type { ClientRequest } from '../request/read.ts';
import type { TokenEstimate } from '../request/token-estimate.ts';
import { passableHeaders } from '../wire/upstream.ts';

/** What a door needs of its agent to serve a hop. */
export interface HopHost {
  readonly token: string;
  readonly salt: string;
  readonly draining: boolean;
  readonly tokens: TokenEstimate;
}

/**
 * Delivers a request that another entry has routed here. False if the header is not the fleet's: then it is a client's request with a header that means
 * nothing. The answer's headers carry the door's load report; a failure of the door or engine is marked, so that the entry may try elsewhere.
 */
export function serveHop(host: HopHost, local: LocalDoors, header: string, client: ClientRequest, response: ServerResponse): boolean {
  const hop = openHop(header, host.token);
  if (!hop) return false;
  local.entries.heard(hop.entry, hop.epoch);
  const door = local.byId.get(hop.instance);
  const answer = new ClientAnswer(response);
  if (!door) {
    answer.fail(503, 'ServiceUnavailableError', `This agent is not the door of ${hop.instance}.`, { headers: { [FAILURE_HEADER]: 'unknown-instance' } });
    return true;
  }
  const request = {
    method: client.method,
    path: client.path,
    headers: passableHeaders(client.headers),
    body: client.body,
    usageAdded: client.headers[USAGE_HEADER] !== undefined,
  };
  const attempt = deliver(door, request, ledgerPrompt(host, client, printOf(host, client)), hop, {
    onHeaders(status, headers) {
      const added = headers[USAGE_HEADER];
      answer.begin(status, headers, { ...(added === undefined ? {} : { [USAGE_HEADER]: String(added) }), ...reportHeader(door, host.draining) });
      // The entry reads the report now, long before the first token.
      response.flushHeaders();
    },
    onData: (chunk) => answer.write(chunk),
    onEnd: () => answer.end(),
    onFailure({ failure, error }) {
      // Cut, not ended: the entry must see that the answer is incomplete, and tells its client.
      if (answer.begun) answer.cut();
      else answer.fail(502, 'BadGatewayError', error.message, { headers: { [FAILURE_HEADER]: failure, ...reportHeader(door, host.draining) } });
    },
  });
  const onGone = (): void => {
    if (!answer.finished) attempt.abort();
    answer.unwatch(onGone, onDrain);
  };
  const onDrain = (): void => attempt.resume();
  answer.watch(onGone, onDrain);
  if (answer.gone) onGone();
  return true;
}

function reportHeader(door: DoorInstance, draining: boolean): Record<string, string> {
  const text = encodeReport([door.report(draining)]);
  return text ? { [REPORT_HEADER]: text } : {};
}
