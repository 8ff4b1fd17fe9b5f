import type { LoggedRequest, RequestLog } from './log-reader.ts';
import { ArrivalClock } from './arrival-clock.ts';

/** A request that was sent to an instance earlier, as seen at a later moment. */
export interface Flight {
  request: LoggedRequest;
  /** ms since it arrived */
  ageMs: number;
}

/** What a gateway knew when a request was routed. Nothing here comes from later events. */
export interface Observation {
  request: LoggedRequest;
  /** ms, by the log's clock or the one made from its counts */
  atMs: number;
  /** requests on the chosen instance that had not ended, oldest first */
  flights: Flight[];
  /** ms since the chosen instance gave its last first token; Infinity before the first */
  sinceFirstTokenMs: number;
  /** ids (places in the log) of requests whose outcome became known since the observation before */
  ended: number[];
}

/** Ended requests of an instance that may have given its last first token. */
const RECENT = 6;

/** One observation for each request of the log, in order of arrival. */
export function observe(log: RequestLog): Observation[] {
  return log.format === 'timed' ? fromTimes(log) : fromCounts(log);
}

function fromTimes(log: RequestLog): Observation[] {
  const { requests } = log;
  const start = requests.map(({ startMs }) => startMs as number);
  const end = requests.map(({ e2eMs }, i) => (start[i] as number) + e2eMs);
  const byEnd = requests.map((_, i) => i).toSorted((a, b) => (end[a] as number) - (end[b] as number));
  const flying = new Map<string, number[]>(log.instances.map((name) => [name, []]));
  const landed = new Map<string, number[]>(log.instances.map((name) => [name, []]));
  let next = 0;
  return requests.map((request, i) => {
    const atMs = start[i] as number;
    const ended: number[] = [];
    for (; next < byEnd.length && (end[byEnd[next] as number] as number) < atMs; next++) {
      const gone = byEnd[next] as number;
      const { instance } = requests[gone] as LoggedRequest;
      flying.set(
        instance,
        (flying.get(instance) as number[]).filter((one) => one !== gone),
      );
      landed.set(instance, [...(landed.get(instance) as number[]).slice(1 - RECENT), gone]);
      ended.push(gone);
    }
    const age = (one: number): Flight => ({
      request: requests[one] as LoggedRequest,
      ageMs: atMs - (start[one] as number),
    });
    const here = flying.get(request.instance) as number[];
    const observation = describe(
      request,
      atMs,
      here.map(age),
      (landed.get(request.instance) as number[]).map(age),
      ended,
    );
    here.push(i);
    return observation;
  });
}

function fromCounts(log: RequestLog): Observation[] {
  const clock = new ArrivalClock(log);
  return log.requests.map((request, i) => {
    const { atMs, flying, landed, ended } = clock.arrive(i, RECENT);
    const age = (one: number): Flight => ({
      request: log.requests[one] as LoggedRequest,
      ageMs: Math.max(0, atMs - clock.arrivalMs(one)),
    });
    return describe(request, atMs, flying.map(age), landed.map(age), ended);
  });
}

function describe(
  request: LoggedRequest,
  atMs: number,
  flights: Flight[],
  landed: readonly Flight[],
  ended: number[],
): Observation {
  let sinceFirstTokenMs = Infinity;
  for (const flight of flights)
    if (hasFirstToken(flight)) sinceFirstTokenMs = Math.min(sinceFirstTokenMs, flight.ageMs - flight.request.ttftMs);
  for (const flight of landed)
    sinceFirstTokenMs = Math.min(sinceFirstTokenMs, Math.max(0, flight.ageMs - flight.request.ttftMs));
  flights.sort((a, b) => b.ageMs - a.ageMs);
  return { request, atMs, flights, sinceFirstTokenMs, ended };
}

/** A gateway sees the first token pass; the log tells by its TTFT whether that was before this moment. */
export function hasFirstToken({ request, ageMs }: Flight): boolean {
  return request.ttftMs <= ageMs;
}
