import type { AgentConfig } from '../shared/config/index.ts';
import type { Env } from '../shared/env.ts';
import type { Decider } from './decide.ts';
import type { Instances } from './instances.ts';
import type { AgentMetrics } from './metrics.ts';
import type { Receipts } from './receipts.ts';
import type { SampleQueue } from './samples.ts';
import type { Snapshots } from './snapshot.ts';
import type { TableState } from './table-state.ts';
import type { TokenEstimate } from './token-estimate.ts';
import type { Watchdog } from './watchdog.ts';

/** What one agent is made of, handed to every step of the request path. */
export interface AgentContext {
  readonly env: Env;
  readonly config: AgentConfig;
  readonly token: string;
  /** boot epoch of this agent: later boots have higher ones */
  readonly epoch: number;
  readonly instances: Instances;
  readonly snapshots: Snapshots;
  readonly tables: TableState;
  readonly decider: Decider;
  readonly tokens: TokenEstimate;
  readonly samples: SampleQueue;
  readonly receipts: Receipts;
  readonly watchdog: Watchdog;
  readonly metrics: AgentMetrics;
  /** the fleet's secret salt for fingerprints; a private one until the brain has told it */
  salt: string;
  draining: boolean;
  /** requests that this entry holds */
  inFlight: number;
}
