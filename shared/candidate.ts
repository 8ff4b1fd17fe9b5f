import type { InstanceReport, LedgerTotals } from './instance.ts';

/** What routing needs to know of a request. */
export interface RoutingRequest {
  /** model as the client named it; undefined = the instance's default */
  model: string | undefined;
  /** estimate: as doors have counted its beginning, the rest by the text */
  promptTokens: number;
  /** estimate by the text alone and the model's learned bytes per token */
  textTokens: number;
  /** true: `promptTokens` is the engine's own count (a prompt of token ids) */
  exactTokens: boolean;
  /** upper bound on the answer that the client gave; 0 = none */
  maxTokens: number;
  /** expected length of the answer in tokens, from earlier answers: never the true one */
  outputTokens: number;
  stream: boolean;
  sloTtftMs: number | undefined;
  sloTpotMs: number | undefined;
  priority: number;
  /** sequences that one call asks for (n × prompts in the batch) */
  sequences: number;
}

/**
 * One instance as one decision sees it: the door's last report plus this entry's reservations that the report has not
 * counted. The ledger's totals, with those reservations added. Mutable and reused between decisions, so that deciding
 * allocates little.
 */
export interface CandidateState extends Omit<LedgerTotals, 'meanOutputTokens' | 'stepAgeMs'> {
  report: InstanceReport;
  /** ms since the moment the report describes */
  ageMs: number;
  /** round trip to the door, ms, by its fastest probes; 0 for a local one */
  linkMs: number;
  /** this entry's requests that the report has not counted */
  unseen: number;
  /** tokens of this request's prompt that the instance has cached (longest prefix), as its engine counts them */
  hitTokens: number;
}

/** A candidate that describes `report` alone: no reservations, no cached prefix. */
export function candidateOf(report: InstanceReport): CandidateState {
  const candidate = { hitTokens: 0, linkMs: 0, ageMs: 0, report } as CandidateState;
  resetCandidate(candidate, report, 0, 0);
  return candidate;
}

/** Points a (reused) candidate at a report and clears what the last decision added to it. */
export function resetCandidate(candidate: CandidateState, report: InstanceReport, ageMs: number, linkMs: number): void {
  const ledger = report.ledger;
  candidate.report = report;
  candidate.ageMs = ageMs;
  candidate.linkMs = linkMs;
  candidate.unseen = 0;
  candidate.inFlight = ledger.inFlight;
  candidate.waiting = ledger.waiting;
  candidate.prefilling = ledger.prefilling;
  candidate.decoding = ledger.decoding;
  candidate.pendingTokens = ledger.pendingTokens;
  candidate.waitingTokens = ledger.waitingTokens;
  candidate.pendingPromptTokens = ledger.pendingPromptTokens;
  candidate.decodeContextTokens = ledger.decodeContextTokens;
  candidate.usedTokens = ledger.usedTokens;
  candidate.workRatio = ledger.workRatio;
  candidate.hitTokens = 0;
}

/** Adds a request that is under way to the instance but not in its report yet. */
export function addReservation(candidate: CandidateState, promptTokens: number, ownTokens: number): void {
  const pending = candidate.waiting + candidate.prefilling;
  candidate.pendingPromptTokens = (candidate.pendingPromptTokens * pending + promptTokens) / (pending + 1);
  candidate.unseen += 1;
  candidate.inFlight += 1;
  candidate.pendingTokens += ownTokens;
  const { kvTokens, maxNumSeqs } = candidate.report.limits;
  const fits =
    candidate.usedTokens + candidate.waitingTokens + ownTokens <= kvTokens &&
    candidate.prefilling + candidate.decoding < maxNumSeqs;
  if (fits) {
    candidate.prefilling += 1;
    candidate.usedTokens += ownTokens;
  } else {
    candidate.waiting += 1;
    candidate.waitingTokens += ownTokens;
  }
}

/** Uncached tokens of the request on the candidate; at least one, since an engine always computes the last block. */
export function uncachedTokens(request: RoutingRequest, candidate: CandidateState): number {
  return Math.max(1, request.promptTokens - candidate.hitTokens);
}
