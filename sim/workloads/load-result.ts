import { summarize, type Summary } from './percentiles.ts';

/**
 * How a request can end: well, or by failing to connect, by its HTTP status, by an error inside the stream, cut off
 * midway, too slow, or stopped by us.
 */
export type OutcomeKind = 'ok' | 'connect' | 'status' | 'in-band-error' | 'cut' | 'timeout' | 'overload' | 'aborted';

/** One request as the client saw it. Times in ms; those of a failed request are what was seen until then. */
export interface LoadOutcome {
  kind: OutcomeKind;
  /** Position in the trace and in the list of URLs. */
  index: number;
  urlIndex: number;
  /** Planned time of sending, and how much later it was sent. */
  arrivalMs: number;
  lateMs: number;
  status: number | undefined;
  ttftMs: number | undefined;
  tpotMs: number | undefined;
  e2eMs: number;
  promptTokens: number | undefined;
  cachedTokens: number | undefined;
  completionTokens: number | undefined;
  /** What went wrong, for people. */
  detail: string | undefined;
}

/** The figures of a run. Rates in requests/s, latencies of successful requests in ms. */
export interface LoadResult {
  sent: number;
  succeeded: number;
  failed: number;
  /** Failures by kind; an HTTP failure as `status 503`. */
  failures: Record<string, number>;
  /** One message for each kind of failure. */
  examples: Record<string, string>;
  aborted: number;
  durationMs: number;
  offeredRate: number;
  achievedRate: number;
  outputTokensPerSecond: number;
  ttftMs: Summary;
  tpotMs: Summary;
  e2eMs: Summary;
  /**
   * How much later than planned requests were sent: large values mean that the generator, not the fleet, was the limit.
   */
  lateMs: Summary;
  /** Cached share of all prompt tokens; undefined where the servers do not report it. */
  kvHitRatio: number | undefined;
  promptTokens: number;
  completionTokens: number;
}

/** Sums up the outcomes of a run that took `durationMs`, whose arrivals were planned over `plannedMs`. */
export function summarizeLoad(outcomes: readonly LoadOutcome[], durationMs: number, plannedMs: number): LoadResult {
  const succeeded = outcomes.filter((outcome) => outcome.kind === 'ok');
  const failed = outcomes.filter((outcome) => outcome.kind !== 'ok' && outcome.kind !== 'aborted');
  const failures: Record<string, number> = {};
  const examples: Record<string, string> = {};
  for (const outcome of failed) {
    const name = outcome.kind === 'status' ? `status ${outcome.status}` : outcome.kind;
    failures[name] = (failures[name] ?? 0) + 1;
    examples[name] ??= outcome.detail ?? '';
  }
  const reporting = succeeded.filter((outcome) => outcome.cachedTokens !== undefined);
  const completionTokens = sum(succeeded, (outcome) => outcome.completionTokens);
  return {
    sent: outcomes.length,
    succeeded: succeeded.length,
    failed: failed.length,
    failures,
    examples,
    aborted: outcomes.length - succeeded.length - failed.length,
    durationMs,
    offeredRate: perSecond(outcomes.length, plannedMs),
    achievedRate: perSecond(succeeded.length, durationMs),
    outputTokensPerSecond: perSecond(completionTokens, durationMs),
    ttftMs: summarize(known(succeeded, (outcome) => outcome.ttftMs)),
    tpotMs: summarize(known(succeeded, (outcome) => outcome.tpotMs)),
    e2eMs: summarize(succeeded.map((outcome) => outcome.e2eMs)),
    lateMs: summarize(outcomes.map((outcome) => outcome.lateMs)),
    kvHitRatio:
      reporting.length === 0
        ? undefined
        : sum(reporting, (outcome) => outcome.cachedTokens) / sum(reporting, (outcome) => outcome.promptTokens),
    promptTokens: sum(succeeded, (outcome) => outcome.promptTokens),
    completionTokens,
  };
}

function known(outcomes: readonly LoadOutcome[], pick: (outcome: LoadOutcome) => number | undefined): number[] {
  return outcomes.map(pick).filter((value) => value !== undefined);
}

function sum(outcomes: readonly LoadOutcome[], pick: (outcome: LoadOutcome) => number | undefined): number {
  return outcomes.reduce((total, outcome) => total + (pick(outcome) ?? 0), 0);
}

function perSecond(count: number, ms: number): number {
  return ms > 0 ? (count * 1000) / ms : 0;
}
