import type { OpenAttempt } from '../open-attempts.ts';

/** Readings in a row that must show requests missing, and the time that they must span. */
const READINGS = 5;
const SPAN_MS = 10_000;

/** One reading of the engine's gauges. */
export interface CountReading {
  /** clock ms when it was asked for: a request that was sent before must be in it */
  readonly beganMs: number;
  /** running and waiting sequences of this instance (of its rank, where several share a server) */
  readonly atEngine: number;
}

interface Reading {
  readonly beganMs: number;
  readonly missing: number;
}

/**
 * Finds requests that an engine has lost: they are open at the door, but the engine counts fewer that run or wait, in
 * five readings over ten seconds. A paused vLLM looks so too: it answers its health check and shows none at all.
 * Traffic that bypasses the door can hide a loss.
 */
export class LostRequests {
  /** the newest readings, each with the sequences that it missed; as many as the span needs */
  private readings: Reading[] = [];

  /** Takes a reading; `open`: the deliveries in flight at this engine. Returns those that are lost, if any. */
  note({ beganMs, atEngine }: CountReading, open: readonly OpenAttempt[]): OpenAttempt[] {
    const sinceMs = this.readings[0]?.beganMs ?? beganMs;
    // One whose reader has paused may be over at the engine and still be read from the connection's buffers.
    const counted = open.filter((one) => one.sequences > 0 && one.sentMs < beganMs && one.pausedUntilMs < sinceMs);
    const missing = counted.reduce((sum, one) => sum + sequencesLeft(one), 0) - atEngine;
    if (missing <= 0) {
      this.readings = [];
      return [];
    }
    this.readings.push({ beganMs, missing });
    while (this.readings.length > READINGS && beganMs - (this.readings[1] as Reading).beganMs >= SPAN_MS)
      this.readings.shift();
    const fromMs = (this.readings[0] as Reading).beganMs;
    if (this.readings.length < READINGS || beganMs - fromMs < SPAN_MS) return [];
    const fewest = Math.min(...this.readings.map((one) => one.missing));
    return longestOverdue(
      counted.filter((one) => one.sentMs < fromMs && one.lastByteMs < fromMs),
      fewest,
      beganMs,
    );
  }
}

/**
 * Of the requests that were silent all the time as many as come to `sequences`, the longest silent against their
 * forecast first.
 */
function longestOverdue(silent: readonly OpenAttempt[], sequences: number, nowMs: number): OpenAttempt[] {
  const overdueMs = (one: OpenAttempt): number => nowMs - Math.max(one.forecastMs, one.lastByteMs);
  const chosen: OpenAttempt[] = [];
  let left = sequences;
  for (const one of silent.toSorted((a, b) => overdueMs(b) - overdueMs(a))) {
    if (left <= 0) break;
    chosen.push(one);
    left -= sequencesLeft(one);
  }
  return chosen;
}

/**
 * Sequences that the engine must count for a request at the least: once a byte has come, some of several may be over.
 */
function sequencesLeft({ sequences, stream, lastByteMs, sentMs }: OpenAttempt): number {
  return stream && lastByteMs === sentMs ? sequences : 1;
}
