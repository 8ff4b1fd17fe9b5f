import type { AgentConfig } from '../../shared/config/index.ts';
import { unpackHashes, unpackTokens } from '../../shared/codec.ts';
import type { Clock } from '../../shared/env.ts';
import { originProblem } from '../../shared/door-url.ts';
import { hasSeen, type InstanceReport } from '../../shared/instance.ts';
import type { BlocksMessage } from '../../shared/protocol.ts';
import type { ReportUpdate } from '../../shared/report.ts';
import type { RosterEntry } from '../../shared/table.ts';
import { Breaker } from './breaker.ts';
import type { DoorInstance } from '../door/door-instance.ts';
import { BlockIndex } from './cache-index/block-index.ts';
import { Expectations } from './cache-index/expectations.ts';
import { Upstream } from '../wire/upstream.ts';

/** A request of this entry that is on its way to an instance and not in its report yet. */
export interface Reservation {
  seq: number;
  promptTokens: number;
  ownTokens: number;
}

/** What a full instance has said. Times are clock ms. */
export interface Rest {
  /** until when it is left alone: what it asks for, within bounds */
  readonly untilMs: number;
  /** until when it asks to be left alone, for clients to know */
  readonly askedUntilMs: number;
  /** 429 or 503 */
  readonly status: number;
}

/** One instance of the fleet as this entry knows it. */
export interface InstanceView {
  readonly id: string;
  /** set when the instance is this agent's own: reports are then read, not received */
  readonly local: DoorInstance | undefined;
  doorUrl: string;
  report: InstanceReport | undefined;
  /** clock ms of the moment that the report describes */
  describesMs: number;
  /** round trip to the door, ms; 0 for a local one */
  linkMs: number;
  /** questions of this entry in a row that the door has not answered (agent/link/link-watch.ts) */
  linkMissing: number;
  readonly breaker: Breaker;
  /** when a request of this entry last got its whole answer from it, clock ms */
  lastGoodMs: number;
  /** undefined: it has not said that it is full */
  rest: Rest | undefined;
  /** numbers this entry's requests to the instance without gaps, so that its door can say which it has counted */
  nextSeq: number;
  reservations: Reservation[];
  /** column in the block index */
  column: number;
  /** what this entry's requests are about to bring into its cache */
  readonly expected: Expectations;
  /** incarnation and sequence of the block deltas applied last; −1 before any */
  blocksIncarnation: number;
  blocksSeq: number;
}

/** Changes of what an instance has cached; `reset`: `add` is all. `tokens` has one for each of `add`, or none. */
interface ViewDelta {
  reset: boolean;
  add: ArrayLike<number>;
  tokens: ArrayLike<number>;
  remove: ArrayLike<number>;
}

/** Missing answers in a row after which the link to a door is down. */
export const LINK_DOWN = 3;
/** Instances that have left and are remembered. */
const MAX_LEFT = 4096;
/** Names remembered; a request for one beyond them is answered as for an unknown one while no instance serves it. */
const MAX_MODELS = 262_144;
/** How fast the link time follows slower probes, per probe. */
const LINK_RISE = 0.05;

/**
 * All that this entry knows of the fleet: reports, links, cached blocks. Mutated by what arrives, read by the snapshot
 * of each decision.
 */
export class Instances {
  readonly index = new BlockIndex();
  readonly views = new Map<string, InstanceView>();
  /** models ever heard of in this fleet: an unknown one is 404, a known one without an instance 503 */
  readonly models = new Set<string>();
  private readonly upstreams = new Map<string, Upstream>();
  /**
   * where the numbering of requests to an instance that has left goes on if it returns: its door remembers what it has
   * counted
   */
  private readonly nextSeqs = new Map<string, number>();
  private readonly clock: Clock;
  private readonly config: AgentConfig;
  private readonly entryId: string;
  private readonly epoch: number;

  constructor(clock: Clock, config: AgentConfig, entryId: string, epoch: number, local: readonly DoorInstance[]) {
    this.clock = clock;
    this.config = config;
    this.entryId = entryId;
    this.epoch = epoch;
    for (const door of local) this.view(door.id, '', door);
  }

  /** Instances from a routing table that nobody has reported yet: their doors are asked. */
  applyRoster(roster: readonly RosterEntry[]): void {
    for (const entry of roster) {
      if (!this.reaches(entry)) continue;
      this.view(entry.instance, entry.doorUrl, undefined);
      this.noteModels(entry.models);
    }
  }

  /**
   * Takes a report if it is newer than the one at hand; one without models leaves the known ones. `heldMs`: how long it
   * was on its way.
   */
  applyReport(update: ReportUpdate, heldMs = 0): void {
    if (!this.reaches(update)) return;
    const view = this.view(update.instance, update.doorUrl, undefined);
    if (view.local) return;
    const known = view.report;
    const report: InstanceReport = { ...update, models: update.models ?? known?.models ?? [] };
    if (
      known &&
      (report.incarnation < known.incarnation || (report.incarnation === known.incarnation && report.seq <= known.seq))
    )
      return;
    if (known && report.incarnation > known.incarnation) {
      // The new engine's blocks may have come before its first report: the brain passes them on at once, reports in
      // batches.
      if (view.blocksIncarnation < report.incarnation) this.clearBlocks(view);
      view.expected.forgetEnded();
    }
    this.setReport(view, report, this.clock.nowMs() - report.ageMs - heldMs);
  }

  /** Reads the reports of this agent's own instances: they are exact at this moment. */
  readLocal(draining: boolean): void {
    for (const view of this.views.values()) {
      if (!view.local) continue;
      const report = view.local.report(draining);
      this.setReport(view, report, this.clock.nowMs() - report.ageMs);
    }
  }

  /** The instance has left the fleet. */
  remove(instance: string): void {
    const view = this.views.get(instance);
    if (!view || view.local) return;
    this.nextSeqs.set(instance, view.nextSeq);
    if (this.nextSeqs.size > MAX_LEFT) this.nextSeqs.delete(this.nextSeqs.keys().next().value as string);
    this.views.delete(instance);
    this.index.clear(instance, true);
    this.retireUnused(view.doorUrl);
  }

  /** Applies a block delta. False if deltas were missed: the caller asks for the whole view again. */
  applyBlocks(message: BlocksMessage): boolean {
    const view = this.views.get(message.instance);
    if (!view || view.local || message.incarnation < view.blocksIncarnation) return true;
    if (!message.reset) {
      if (message.incarnation !== view.blocksIncarnation) return false;
      if (message.seq <= view.blocksSeq) return true;
      if (message.seq !== view.blocksSeq + 1) return false;
    }
    view.blocksIncarnation = message.incarnation;
    view.blocksSeq = message.seq;
    this.applyDelta(view, {
      reset: message.reset,
      add: unpackHashes(message.add),
      tokens: unpackTokens(message.tokens),
      remove: unpackHashes(message.remove),
    });
    return true;
  }

  /** Mirrors the delta of a local instance into the index. */
  applyLocalDelta(instance: string, delta: ViewDelta): void {
    const view = this.views.get(instance);
    if (view) this.applyDelta(view, delta);
  }

  /** The link is as fast as its fastest probes: what a busy host adds to others is no property of the link. */
  noteLink(view: InstanceView, roundTripMs: number): void {
    if (view.linkMs === 0 || roundTripMs < view.linkMs) view.linkMs = roundTripMs;
    else view.linkMs += LINK_RISE * (roundTripMs - view.linkMs);
  }

  /** Connections to the view's door, shared by all instances behind it. */
  upstream(view: InstanceView): Upstream {
    let upstream = this.upstreams.get(view.doorUrl);
    if (!upstream) {
      upstream = new Upstream(view.doorUrl, this.config.connectTimeoutMs, this.clock);
      this.upstreams.set(view.doorUrl, upstream);
    }
    return upstream;
  }

  async close(): Promise<void> {
    await Promise.all([...this.upstreams.values()].map((upstream) => upstream.close()));
  }

  private applyDelta(view: InstanceView, { reset, add, tokens, remove }: ViewDelta): void {
    if (reset) this.clearBlocks(view);
    this.index.removeAll(view.id, remove);
    this.index.addAll(view.id, add, tokens);
    if (view.expected.size > 0) view.expected.confirm((hash) => this.index.holds(view.id, hash));
  }

  private clearBlocks(view: InstanceView): void {
    this.index.clear(view.id);
    view.column = this.index.column(view.id);
  }

  /**
   * Gives up the connections to a door behind which no instance is known any more; what runs on them ends by itself.
   */
  private retireUnused(doorUrl: string): void {
    for (const view of this.views.values()) if (view.doorUrl === doorUrl) return;
    void this.upstreams.get(doorUrl)?.retire();
    this.upstreams.delete(doorUrl);
  }

  private view(id: string, doorUrl: string, local: DoorInstance | undefined): InstanceView {
    const known = this.views.get(id);
    if (known) {
      if (doorUrl && known.doorUrl !== doorUrl && !known.local) {
        const left = known.doorUrl;
        known.doorUrl = doorUrl;
        this.retireUnused(left);
      }
      return known;
    }
    const view: InstanceView = {
      id,
      local,
      doorUrl,
      report: undefined,
      describesMs: -Infinity,
      linkMs: 0,
      linkMissing: 0,
      breaker: new Breaker(this.config.breaker, this.clock),
      lastGoodMs: -Infinity,
      rest: undefined,
      nextSeq: this.nextSeqs.get(id) ?? 0,
      reservations: [],
      column: this.index.column(id),
      expected: new Expectations(this.clock),
      blocksIncarnation: -1,
      blocksSeq: -1,
    };
    this.views.set(id, view);
    return view;
  }

  /** False for a door that nothing can be sent to. */
  private reaches({ instance, doorUrl }: Pick<RosterEntry, 'instance' | 'doorUrl'>): boolean {
    return this.views.get(instance)?.doorUrl === doorUrl || originProblem(doorUrl) === undefined;
  }

  private noteModels(models: readonly string[]): void {
    for (const model of models) if (this.models.size < MAX_MODELS) this.models.add(model);
  }

  private setReport(view: InstanceView, report: InstanceReport, describesMs: number): void {
    if (view.report?.models !== report.models) this.noteModels(report.models);
    view.report = report;
    view.describesMs = describesMs;
    if (view.reservations.length > 0) {
      view.reservations = view.reservations.filter((one) => !hasSeen(report.seen, this.entryId, this.epoch, one.seq));
    }
  }
}
