import { addReservation, type CandidateState, candidateOf, resetCandidate, type RoutingRequest } from '../shared/candidate.ts';
import { guards, hardGuards, type Guard, type GuardContext } from './guards/index.ts';
import type { InstanceView, Instances } from './instances.ts';
import { engineHitTokens } from './prefix/cache-view.ts';

/** The cluster frozen for one decision: who may take the request, and in what state each is. Reused: valid until the next is taken. */
export interface Snapshot {
  views: InstanceView[];
  candidates: CandidateState[];
  /** guard that was relaxed because it left nobody, for the receipt */
  relaxed: string | undefined;
  /** age of the oldest state among the candidates, ms */
  maxAgeMs: number;
}

/** Takes snapshots for one entry, reusing their memory. */
export class Snapshots {
  private readonly instances: Instances;
  private readonly pool: CandidateState[] = [];
  private readonly snapshot: Snapshot = { views: [], candidates: [], relaxed: undefined, maxAgeMs: 0 };
  private matched = new Uint32Array(32);

  constructor(instances: Instances) {
    this.instances = instances;
  }

  /** `excluded`: instances that have already failed this request. `tokensPerBlock`: of this prompt. Without any candidate `views` is empty. */
  take(context: GuardContext, hashes: Float64Array, tokensPerBlock: number, excluded: ReadonlySet<string>): Snapshot {
    const { snapshot } = this;
    snapshot.relaxed = undefined;
    this.select(context, guards, excluded);
    if (snapshot.views.length === 0) {
      this.select(context, hardGuards, excluded);
      if (snapshot.views.length > 0) snapshot.relaxed = 'soft guards';
    }
    if (snapshot.views.length > 0) this.fill(context, hashes, tokensPerBlock);
    return snapshot;
  }

  private select(context: GuardContext, rules: readonly Guard[], excluded: ReadonlySet<string>): void {
    const { views } = this.snapshot;
    views.length = 0;
    for (const view of this.instances.views.values()) {
      if (excluded.size > 0 && excluded.has(view.id)) continue;
      if (rules.every((guard) => guard.allows(view, context))) views.push(view);
    }
  }

  private fill(context: GuardContext, hashes: Float64Array, tokensPerBlock: number): void {
    const { snapshot } = this;
    this.match(hashes);
    snapshot.candidates.length = 0;
    snapshot.maxAgeMs = 0;
    for (const view of snapshot.views) {
      const candidate = this.candidate(view, context.nowMs);
      const blockTokens = candidate.report.limits.blockTokens;
      candidate.hitTokens = hitTokens(this.matched[view.column] ?? 0, tokensPerBlock, context.request, blockTokens);
      for (const reservation of view.reservations) addReservation(candidate, reservation.promptTokens, reservation.ownTokens);
      snapshot.maxAgeMs = Math.max(snapshot.maxAgeMs, candidate.ageMs);
      snapshot.candidates.push(candidate);
    }
  }

  private match(hashes: Float64Array): void {
    let highest = 0;
    for (const view of this.snapshot.views) highest = Math.max(highest, view.column);
    if (this.matched.length <= highest) this.matched = new Uint32Array(2 * (highest + 1));
    this.instances.index.match(hashes, this.matched);
  }

  private candidate(view: InstanceView, nowMs: number): CandidateState {
    const at = this.snapshot.candidates.length;
    const report = view.report as NonNullable<InstanceView['report']>;
    const candidate = (this.pool[at] ??= candidateOf(report));
    resetCandidate(candidate, report, Math.max(0, nowMs - view.describesMs), view.linkMs);
    return candidate;
  }
}

function hitTokens(blocks: number, tokensPerBlock: number, request: RoutingRequest, blockTokens: number): number {
  return engineHitTokens(blocks * tokensPerBlock, request.promptTokens, blockTokens);
}
