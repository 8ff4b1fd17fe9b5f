/** What has happened to an event stream, counted since the start of the agent. */
export interface HistoryCounts {
  batches: number;
  events: number;
  /** jumps of the sequence in the live stream */
  gaps: number;
  /** questions to the replay socket */
  replays: number;
  /** batches that nobody can give any more */
  lost: number;
  /** the engine began a new sequence */
  restarts: number;
  /** batches that came twice, or from an engine that has been replaced */
  stale: number;
  /** live batches for which there was no room while an answer was awaited; they are asked for again */
  dropped: number;
}

/** Counts of a new history: all 0. */
export function noCounts(): HistoryCounts {
  return { batches: 0, events: 0, gaps: 0, replays: 0, lost: 0, restarts: 0, stale: 0, dropped: 0 };
}
