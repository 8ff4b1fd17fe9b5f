import type { HistoryCounts } from './history-counts.ts';
import type { ProblemKind } from './problem.ts';

/** How the event stream of one instance fares. Counts are since the start of the agent. */
export interface KvStreamFigures extends HistoryCounts {
  endpoint: string;
  replayEndpoint: string | undefined;
  connected: boolean;
  /** Whether there has been a connection at all. */
  everConnected: boolean;
  /**
   * `complete`: from the engine's first event on; `partial`: from some later one; `none`: nothing that could be used.
   */
  history: 'complete' | 'partial' | 'none';
  lastSeq: number | undefined;
  /** Since the last message; undefined before the first. An idle engine sends nothing. */
  silentMs: number | undefined;
  /** Messages that could not be used, and failures of the connection, by kind. */
  bad: Partial<Record<ProblemKind, number>>;
  problem: string | undefined;
}
