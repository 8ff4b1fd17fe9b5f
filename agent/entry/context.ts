import { randomBytes } from 'node:crypto';
import type { AgentConfig } from '../../shared/config/index.ts';
import type { Env } from '../../shared/env.ts';
import { CACHE_SOURCES, type CacheFigures } from '../../shared/instance.ts';
import { unhandledRejections } from '../../shared/process-guard.ts';
import type { RoutingTable } from '../../shared/table.ts';
import { BodyIntake } from '../request/body-intake.ts';
import { Decider } from './decide.ts';
import type { DoorInstance } from '../door/door-instance.ts';
import { Instances } from './instances.ts';
import { AgentMetrics, type LabelledGauge } from '../metrics.ts';
import { OutputEstimate } from './output-estimate.ts';
import { Receipts } from './receipts.ts';
import { RunningAttempts } from './running-attempts.ts';
import { SampleQueue } from './samples.ts';
import { Snapshots } from './snapshot.ts';
import { TableState } from './table-state.ts';
import { TokenEstimate } from '../request/token-estimate.ts';
import { Watchdog } from './watchdog.ts';

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
  readonly outputs: OutputEstimate;
  readonly samples: SampleQueue;
  readonly receipts: Receipts;
  readonly watchdog: Watchdog;
  readonly running: RunningAttempts;
  readonly bodies: BodyIntake;
  readonly metrics: AgentMetrics;
  /** the fleet's secret salt for fingerprints; a private one until the brain has told it */
  salt: string;
  draining: boolean;
  /** requests that this entry holds */
  inFlight: number;
}

/** Makes the parts of an agent. `doors`: its local instances. */
export function makeContext(
  config: AgentConfig,
  token: string,
  env: Env,
  epoch: number,
  doors: readonly DoorInstance[],
): AgentContext {
  const instances = new Instances(env.clock, config, config.id, epoch, doors);
  const tables = new TableState(config, env);
  const watchdog = new Watchdog(env.clock);
  const context: AgentContext = {
    env,
    config,
    token,
    epoch,
    instances,
    snapshots: new Snapshots(instances),
    tables,
    decider: new Decider(tables, env),
    tokens: new TokenEstimate(),
    outputs: new OutputEstimate(),
    samples: new SampleQueue(config.sampleQueueMax),
    receipts: new Receipts(config.receiptsMax),
    watchdog,
    running: new RunningAttempts(),
    bodies: new BodyIntake(config, env.clock, watchdog),
    metrics: makeMetrics(() => context, doors),
    salt: randomBytes(32).toString('hex'),
    draining: false,
    inFlight: 0,
  };
  return context;
}

/** A routing table has come and is in force at once. `doors`: the agent's local instances, by id. */
export function applyTable(context: AgentContext, doors: ReadonlyMap<string, DoorInstance>, table: RoutingTable): void {
  context.tables.apply(table);
  context.tokens.applyTable(table);
  context.outputs.applyTable(table);
  context.instances.applyRoster(table.roster);
  for (const door of doors.values()) door.setPriors(table.laws);
}

function makeMetrics(context: () => AgentContext, doors: readonly DoorInstance[]): AgentMetrics {
  const gauges = {
    in_flight_requests: { help: 'Requests that this entry holds', read: () => context().inFlight },
    body_bytes: { help: 'Memory held by request bodies', read: () => context().bodies.heldBytes },
    samples_waiting: { help: 'Samples that wait for the brain', read: () => context().samples.size },
    samples_dropped: { help: 'Samples lost because the queue was full', read: () => context().samples.dropped },
    table_version: { help: 'Version of the routing table in force', read: () => context().tables.table?.version ?? 0 },
    learned_in_force: {
      help: '1 while learned predictions route',
      read: () => (context().tables.inForce(undefined).policy === 'learned' ? 1 : 0),
    },
    unhandled_rejections: { help: 'Rejected promises that nobody has dealt with', read: unhandledRejections },
    outside_requests: {
      help: 'Requests at the local engines that did not come through their door',
      read: () => doors.reduce((sum, door) => sum + door.outside.requests, 0),
    },
    cache_index_blocks: { help: 'Prefix blocks in the cache index', read: () => context().instances.index.blockCount },
    cache_index_refused: {
      help: 'Prefix blocks that the full cache index has refused',
      read: () => context().instances.index.refused,
    },
  };
  const caches = (): { instance: string; cache: CacheFigures }[] => {
    const { instances, draining } = context();
    instances.readLocal(draining);
    return [...instances.views.values()].flatMap(({ id, local, report }) =>
      local && report?.cache ? [{ instance: id, cache: report.cache }] : [],
    );
  };
  const ofCache = (help: string, value: (cache: CacheFigures) => number): LabelledGauge => ({
    help,
    labels: ['instance'],
    read: () => caches().map(({ instance, cache }) => ({ labels: { instance }, value: value(cache) })),
  });
  return new AgentMetrics(gauges, {
    cache_view_accuracy_ratio: ofCache(
      'Share of answers whose cached tokens the door predicted within one engine block',
      (cache) => cache.accuracyRatio,
    ),
    cache_view_blocks: ofCache('Prefix blocks in the view of the local engine', (cache) => cache.blocks),
    cache_view_source: {
      help: '1 for where the view of the local engine comes from',
      labels: ['instance', 'source'],
      read: () =>
        caches().flatMap(({ instance, cache }) =>
          CACHE_SOURCES.map((source) => ({ labels: { instance, source }, value: Number(source === cache.source) })),
        ),
    },
  });
}
