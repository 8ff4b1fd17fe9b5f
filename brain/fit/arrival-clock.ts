import type { LoggedRequest, RequestLog } from './log-reader.ts';

/**
 * Arrivals before the newest whose times are still being improved: longer ago, hardly anything that is learned moves
 * them.
 */
const WINDOW = 300;
/** Of those, the newest, which need several sweeps. */
const UNSETTLED = 100;
const SWEEPS = 12;
/**
 * Part of the mean gap between arrivals below which a vote's error counts by its square, above by its size: a misread
 * count must not move the clock.
 */
const NEAR_SHARE = 0.75;
/** Weight of the votes of neighbouring arrivals. */
const NEIGHBOUR = 3;
/**
 * Newest counts whose ends do not vote yet: a gateway that routes several requests at once counts some of them late,
 * and the next count tells.
 */
const UNCONFIRMED = 1;
/** Arrivals within which a count may still take an end back. */
const REVOCABLE = 16;

/** Mean requests in flight below which Little's law says little of the rate. */
const IN_FLIGHT_MIN = 0.1;

/** What the clock says when a request arrives. Requests by their place in the log. */
export interface Arrival {
  atMs: number;
  flying: number[];
  landed: number[];
  ended: number[];
}

/**
 * Times for a log that has none: arrivals in order, completions in order per instance, the gateway's counts of requests
 * in flight at each arrival, and how long each request took. The counts tell how many requests of each instance had
 * ended before each arrival, which puts the end of a request (arrival + end-to-end time) between two arrivals; every
 * arrival time is then the robust mean of what its neighbours and those ends say (iteratively reweighted, in sweeps
 * over the newest arrivals). At an arrival only end-to-end times of requests that have ended are used.
 */
export class ArrivalClock {
  private readonly requests: readonly LoggedRequest[];
  private readonly names: readonly string[];
  private readonly gapMs: number;
  /** place among the completions */
  private readonly endRank: Float64Array;
  private readonly at: Float64Array;
  /** arrival before which the request was first counted as ended; -1: it was not */
  private readonly slot: Int32Array;
  /** requests that ended between an arrival and the one before */
  private readonly slots: number[][];
  private readonly flying = new Map<string, number[]>();
  private readonly landed = new Map<string, number[]>();

  constructor(log: RequestLog) {
    const { requests, instances } = log;
    this.requests = requests;
    this.names = instances;
    for (const name of instances) {
      this.flying.set(name, []);
      this.landed.set(name, []);
    }
    this.gapMs = meanGapMs(requests);
    this.endRank = endRanks(requests, this.gapMs);
    this.at = new Float64Array(requests.length);
    this.slot = new Int32Array(requests.length).fill(-1);
    this.slots = requests.map(() => []);
  }

  /** Best knowledge so far of when a request arrived. */
  arrivalMs(one: number): number {
    return this.at[one] as number;
  }

  /** Takes the next arrival, in order. `recent`: how many of the instance's last ended requests to tell. */
  arrive(newest: number, recent: number): Arrival {
    const request = this.requests[newest] as LoggedRequest;
    this.names.forEach((name, at) => this.count(name, request.inFlight[at] as number, newest));
    this.at[newest] = newest === 0 ? 0 : (this.at[newest - 1] as number) + this.gapMs;
    for (let sweep = 0; sweep < SWEEPS; sweep++) {
      const oldest = Math.max(0, newest - (sweep === 0 ? WINDOW : UNSETTLED));
      for (let i = newest; i > oldest; i--) this.improve(i, newest);
    }
    const here = this.flying.get(request.instance) as number[];
    const arrival = {
      atMs: this.arrivalMs(newest),
      flying: [...here],
      landed: (this.landed.get(request.instance) as number[]).slice(-recent),
      ended: newest < REVOCABLE ? [] : [...(this.slots[newest - REVOCABLE] as number[])],
    };
    here.push(newest);
    return arrival;
  }

  /** Takes the gateway's count for one instance: those that ended first are no longer in flight, or were not yet. */
  private count(name: string, inFlight: number, newest: number): void {
    const flying = this.flying.get(name) as number[];
    const landed = this.landed.get(name) as number[];
    const rank = (one: number): number => this.endRank[one] as number;
    if (flying.length > inFlight) {
      flying.sort((a, b) => rank(a) - rank(b));
      for (const one of flying.splice(0, flying.length - inFlight)) {
        this.slot[one] = newest;
        (this.slots[newest] as number[]).push(one);
        landed.push(one);
      }
    }
    while (flying.length < inFlight) {
      const last = landed.at(-1);
      const slot = last === undefined ? -1 : (this.slot[last] as number);
      if (last === undefined || slot < newest - REVOCABLE + 1) return;
      landed.pop();
      this.slots[slot] = (this.slots[slot] as number[]).filter((one) => one !== last);
      this.slot[last] = -1;
      flying.push(last);
    }
  }

  /** Moves one arrival to the robust mean of its votes. */
  private improve(i: number, newest: number): void {
    const { at, gapMs, requests } = this;
    const half = gapMs / 2;
    const now = at[i] as number;
    const settled = newest - UNCONFIRMED;
    let weights = 0;
    let sum = 0;
    const vote = (value: number, share = 1): void => {
      const weight = share / Math.max(NEAR_SHARE * gapMs, Math.abs(value - now));
      weights += weight;
      sum += weight * value;
    };
    const endMs = (one: number): number => (at[one] as number) + (requests[one] as LoggedRequest).e2eMs;
    vote((at[i - 1] as number) + gapMs, NEIGHBOUR);
    if (i < newest) vote((at[i + 1] as number) - gapMs, NEIGHBOUR);
    if (i <= settled) for (const one of this.slots[i] as number[]) vote(endMs(one) + half);
    if (i + 1 <= settled) for (const one of this.slots[i + 1] as number[]) vote(endMs(one) - half);
    const slot = this.slot[i] as number;
    if (slot > 0 && slot <= settled) {
      const tookMs = (requests[i] as LoggedRequest).e2eMs;
      vote((at[slot] as number) - half - tookMs);
      vote((at[slot - 1] as number) + half - tookMs);
    }
    at[i] = sum / weights;
  }
}

/** Mean time between arrivals by Little's law, over the first half of the log: end-to-end time / requests in flight. */
function meanGapMs(requests: readonly LoggedRequest[]): number {
  let inFlight = 0;
  let tookMs = 0;
  for (const request of requests.slice(0, Math.ceil(requests.length / 2))) {
    for (const count of request.inFlight) inFlight += count;
    tookMs += request.e2eMs;
  }
  return tookMs / Math.max(inFlight, IN_FLIGHT_MIN * requests.length, 1e-9);
}

/**
 * Order of completion: that of the rows, unless someone sorted them by arrival; then what even arrivals and the
 * end-to-end times say.
 */
function endRanks(requests: readonly LoggedRequest[], gapMs: number): Float64Array {
  const sorted = requests.every(({ row }, i) => i === 0 || row > (requests[i - 1] as LoggedRequest).row);
  return Float64Array.from(requests, ({ row, e2eMs }, i) => (sorted ? i * gapMs + e2eMs : row));
}
