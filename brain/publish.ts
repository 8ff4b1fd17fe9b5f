import { FALLBACK_POLICY } from '../shared/choice/policies/index.ts';
import { encode } from '../shared/codec.ts';
import type { Clock, Log, Timer } from '../shared/env.ts';
import { FEATURE_SCHEMA } from '../shared/features.ts';
import type { BrainMessage } from '../shared/protocol.ts';
import {
  MAX_TABLE_BYTES,
  type RosterEntry,
  type RoutingTable,
  sealTable,
  type SealedTable,
  type Trust,
} from '../shared/table.ts';
import type { Peer } from './connection.ts';
import type { Counters } from './counters.ts';
import { type Laws, lawsMoved } from './law-priors.ts';
import { GONE_AFTER_MS } from './registry.ts';
import { fitRoster } from './roster.ts';
import type { BrainStore } from './store.ts';

const ROSTER_SETTLES_MS = 1_000;
export const REFRESH_MS = 30_000;
/** Room is left for what travels in a frame beside the table. */
const MAX_BODY_BYTES = MAX_TABLE_BYTES - 4096;

/** All of a table that others decide; the publisher adds version, time and who is remembered from before a restart. */
export type TableParts = Omit<RoutingTable, 'version' | 'atWallMs' | 'featureSchema'>;

export interface PublisherDeps {
  clock: Clock;
  log: Log;
  store: BrainStore;
  counters: Counters;
  parts(): TableParts;
  broadcast(message: BrainMessage, owe: (peer: Peer) => void): void;
}

/** Makes routing tables: builds, seals, stores, then sends. Versions only grow, over restarts too. */
export class Publisher {
  private readonly deps: PublisherDeps;
  private readonly startedMs: number;
  private readonly remembered: readonly RosterEntry[];
  private sealed: SealedTable | null;
  private last: RoutingTable | null;
  private version: number;
  private saidLarge = false;
  private rosterTimer: Timer | undefined;
  private readonly refresh: Timer;

  constructor(deps: PublisherDeps) {
    this.deps = deps;
    this.startedMs = deps.clock.nowMs();
    const stored = deps.store.lastTable();
    this.sealed = stored?.sealed ?? null;
    this.last = stored?.table ?? null;
    this.remembered = stored?.table.roster ?? [];
    this.version = Math.max(deps.store.lastVersion(), stored?.table.version ?? 0);
    this.refresh = deps.clock.every(REFRESH_MS, () => this.publish('refresh'));
  }

  /** The table in force as it travels; null before the first. */
  current(): SealedTable | null {
    return this.sealed;
  }

  table(): RoutingTable | null {
    return this.last;
  }

  /** Publishes a second later, so that a fleet that starts does not make a table an instance. */
  rosterChanged(): void {
    this.rosterTimer ??= this.deps.clock.after(ROSTER_SETTLES_MS, () => {
      this.rosterTimer = undefined;
      this.publish('roster');
    });
  }

  /** Publishes if the laws have moved since the last table. */
  lawsAre(laws: Laws): void {
    if (this.last && lawsMoved(this.last.laws, laws)) this.publish('laws');
  }

  /** Publishes if the verdict is another one than agents know. */
  trustIs(trust: Trust): void {
    if (trust.verdict !== (this.last?.trust.verdict ?? 'learning')) this.publish('trust', trust);
  }

  /** `trust`: the verdict to publish, with the reason of its change; by default the present one. */
  publish(reason: string, trust?: Trust): void {
    const { clock, log, store, counters, broadcast } = this.deps;
    const parts = { ...this.deps.parts(), ...(trust ? { trust } : {}) };
    this.version += 1;
    const table: RoutingTable = {
      ...parts,
      roster: fitRoster(this.withRemembered(parts.roster)),
      version: this.version,
      atWallMs: clock.wallMs(),
      featureSchema: FEATURE_SCHEMA,
    };
    const sealed = this.seal(table);
    if (!sealed) return;
    store.saveTable(sealed, this.version);
    const before = this.last?.trust.verdict ?? 'learning';
    this.last = table;
    this.sealed = sealed;
    if (table.trust.verdict !== before) log.info(trustChange(table));
    counters.tablesPublished += 1;
    log.info(
      {
        version: table.version,
        reason,
        instances: table.roster.length,
        net: table.net !== null,
        trust: table.trust.verdict,
      },
      'routing table published',
    );
    broadcast({ t: 'table', table: sealed }, (peer) => (peer.owed.table = true));
  }

  /** The table in force, for one that missed it. */
  sendTo(peer: Peer): void {
    peer.owed.table = false;
    if (this.sealed) peer.send(encode({ t: 'table', table: this.sealed } satisfies BrainMessage));
  }

  close(): void {
    this.refresh.cancel();
    this.rosterTimer?.cancel();
  }

  /** Undefined for a table that no frame could carry: the last one stays in force. */
  private seal(table: RoutingTable): SealedTable | undefined {
    const sealed = sealTable(table);
    const isSmall = sealed.body.byteLength <= MAX_BODY_BYTES;
    if (!isSmall && !this.saidLarge)
      this.deps.log.error(
        { bytes: sealed.body.byteLength, maxBytes: MAX_BODY_BYTES },
        'the routing table is too large to be sent: the last one stays in force',
      );
    this.saidLarge = !isSmall;
    return isSmall ? sealed : undefined;
  }

  /** After a restart, instances that have not reported yet stay in the roster as long as a silent one would. */
  private withRemembered(roster: RosterEntry[]): RosterEntry[] {
    if (this.deps.clock.nowMs() - this.startedMs >= GONE_AFTER_MS) return roster;
    const present = new Set(roster.map((entry) => entry.instance));
    return [...roster, ...this.remembered.filter((entry) => !present.has(entry.instance))];
  }
}

/** The switch of policy in words. */
function trustChange({ trust, policy, version }: RoutingTable): string {
  const error =
    trust.medianApe === null
      ? 'no outcome yet'
      : `median error ${Math.round(trust.medianApe * 100)} % over ${trust.samples} outcomes`;
  const routing = policy === 'learned' ? policyInForce(policy, trust) : `${policy}, as the operator chose,`;
  if (trust.verdict === 'trusted') return `trust earned: routing by ${routing} from table ${version} (${error})`;
  if (trust.verdict === 'learning')
    return `learning: routing by ${routing} on the step-time laws from table ${version} (${trust.reason})`;
  return `trust lost: routing by ${routing} from table ${version} (${trust.reason})`;
}

/** What agents do with the table's policy: `learned` gives way where it is shown to be wrong. */
export function policyInForce(policy: RoutingTable['policy'], trust: Trust): RoutingTable['policy'] {
  return policy === 'learned' && trust.verdict === 'untrusted' ? FALLBACK_POLICY : policy;
}
