import type { AttemptFailure } from '../wire/ending.ts';

/**
 * Identifies a delivery: entry, its boot epoch, its sequence number at the instance. Always complete: a local entry
 * numbers its requests too.
 */
export interface DeliveryId {
  entry: string;
  epoch: number;
  seq: number;
  /** another agent's entry, which asks for its attempts while they run */
  watched: boolean;
}

/** One delivery in flight at an engine, as the watches of its door see it. Times are of the injected clock, ms. */
export interface OpenAttempt {
  readonly id: DeliveryId;
  readonly instance: string;
  readonly sentMs: number;
  /** of the newest byte from the engine; `sentMs` before any */
  readonly lastByteMs: number;
  /** by when its first token was forecast, or the whole answer if it is no stream */
  readonly forecastMs: number;
  /** sequences that the engine counts for it among those that run or wait; 0: a route that no engine computes */
  readonly sequences: number;
  readonly stream: boolean;
  /** its reader does not read on, so neither do we: its silence says nothing of the engine */
  readonly paused: boolean;
  /** when its reader last read on after a pause; Infinity during one, −Infinity if there was none */
  readonly pausedUntilMs: number;
  /**
   * Ends it: its handler gets the failure, and the connection to the engine is closed. Does nothing when it is over.
   */
  end(failure: AttemptFailure): void;
}

/** All deliveries in flight at the engines of one agent. */
export class OpenAttempts {
  private readonly open = new Set<OpenAttempt>();

  get size(): number {
    return this.open.size;
  }

  add(attempt: OpenAttempt): void {
    this.open.add(attempt);
  }

  remove(attempt: OpenAttempt): void {
    this.open.delete(attempt);
  }

  /** Those that match, as a copy: ending them changes the set. */
  select(matches: (attempt: OpenAttempt) => boolean): OpenAttempt[] {
    return [...this.open].filter(matches);
  }
}
