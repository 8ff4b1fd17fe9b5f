/** Everything the brain counts, with what it means: /metrics and /lodestar/status are generated from this table. */
export const COUNTERS = {
  framesReceived: 'frames received from agents',
  framesMalformed: 'frames that could not be decoded or did not fit the protocol; their senders were dropped',
  framesOversized: 'frames over the size limit; their senders were dropped',
  reportFaults: 'fields of reports, whole reports and block deltas that did not fit the protocol and were left out',
  unauthorized: 'connections and requests without the fleet token',
  peersRefused: 'agents refused after their hello',
  peersReplaced: 'connections replaced by a newer one of the same agent',
  peersDropped: 'agents dropped because they were silent or did not read',
  claimsRefused: 'reports and block deltas of an instance that another agent holds',
  blockGaps: 'breaks in the sequence of block deltas of an instance',
  batchesDuplicate: 'sample batches received again and ignored',
  samplesReceived: 'samples received',
  samplesInvalid: 'samples that did not fit the protocol',
  samplesCensored: 'samples of failed, aborted or timed out attempts, which are not trained on',
  samplesNotStored: 'samples that were learned from but not stored, because the store could not be written',
  samplesLost: 'samples that agents say they had to drop',
  roundsRun: 'training rounds finished',
  roundsFailed: 'training rounds that ended in an error or with values that are not finite',
  challengersAccepted: 'nets that replaced the one in force',
  challengersRejected: 'nets that were no better on live outcomes and were dropped',
  championsDropped: 'nets in force that became worse than the prior and were dropped',
  trainerRestarts: 'restarts of the training thread because it gave no answer',
  storeFailures: 'writes to the store that failed',
  tablesPublished: 'routing tables published',
} as const;

export type CounterName = keyof typeof COUNTERS;
export type Counters = Record<CounterName, number>;

export function newCounters(): Counters {
  return Object.fromEntries(Object.keys(COUNTERS).map((name) => [name, 0])) as Counters;
}
