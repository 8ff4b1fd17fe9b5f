import { Decider } from '../../agent/entry/decide.ts';
import { Instances } from '../../agent/entry/instances.ts';
import { Snapshots } from '../../agent/entry/snapshot.ts';
import { TableState } from '../../agent/entry/table-state.ts';
import type { RoutingRequest } from '../../shared/candidate.ts';
import { type AgentConfig, defaultConfig } from '../../shared/config/index.ts';
import { seededRng, silentLog } from '../../shared/env.ts';
import { requestOf } from './reports.ts';
import { VirtualClock } from './virtual-clock.ts';

export const ENTRY = 'entry';
export const EPOCH = 1000;
const NOTHING: ReadonlySet<string> = new Set();

/** The deciding half of an entry without a server: reports in, decisions out. */
export class Entry {
  readonly clock = new VirtualClock();
  readonly config: AgentConfig;
  readonly instances: Instances;
  readonly snapshots: Snapshots;
  readonly tables: TableState;
  readonly decider: Decider;

  constructor(changes: Partial<AgentConfig> = {}, seed = 1) {
    this.config = { ...defaultConfig('token-of-the-tests').agent, id: ENTRY, ...changes };
    const env = { clock: this.clock, rng: seededRng(seed), log: silentLog };
    this.instances = new Instances(this.clock, this.config, ENTRY, EPOCH, []);
    this.snapshots = new Snapshots(this.instances);
    this.tables = new TableState(this.config, env);
    this.decider = new Decider(this.tables, env);
  }

  take(request: RoutingRequest = requestOf(1000), hashes = new Float64Array(), excluded = NOTHING) {
    return this.snapshots.take(
      { request, nowMs: this.clock.nowMs(), staleAfterMs: this.config.staleAfterMs },
      hashes,
      32,
      excluded,
    );
  }

  decide(request: RoutingRequest = requestOf(1000), hashes = new Float64Array()) {
    return this.decider.decide(request, this.take(request, hashes));
  }
}
