import { engineHitTokens } from '../../shared/blocks/hit-tokens.ts';
import {
  addReservation,
  type CandidateState,
  candidateOf,
  resetCandidate,
  type RoutingRequest,
} from '../../shared/candidate.ts';
import type { Guard, GuardContext, Yields } from './guards/guard.ts';
import { guards } from './guards/index.ts';
import type { InstanceView, Instances } from './instances.ts';
import type { PrefixMatch } from './cache-index/block-index.ts';

/**
 * The cluster frozen for one decision: who may take the request, and in what state each is. Reused: valid until the
 * next is taken.
 */
export interface Snapshot {
  views: InstanceView[];
  candidates: CandidateState[];
  /** guard that was relaxed because it left nobody, for the receipt */
  relaxed: string | undefined;
  /** age of the oldest state among the candidates, ms */
  maxAgeMs: number;
  /** tokens of the prompt, as well as the doors' counts tell; without candidates as the request says */
  promptTokens: number;
}

interface Step {
  readonly rules: readonly Guard[];
  /** what has given way, for the decision's reason */
  readonly relaxed: string | undefined;
}

function without(...yielding: Yields[]): readonly Guard[] {
  return guards.filter((guard) => !yielding.includes(guard.yields));
}

/** The rules in force, and those that are left where nobody meets them. */
const ladder: readonly Step[] = [
  { rules: guards, relaxed: undefined },
  { rules: without('soft'), relaxed: 'soft guards' },
  { rules: without('soft', 'panic'), relaxed: 'breakers' },
];

/** Takes snapshots for one entry, reusing their memory. */
export class Snapshots {
  private readonly instances: Instances;
  private readonly pool: CandidateState[] = [];
  private readonly snapshot: Snapshot = { views: [], candidates: [], relaxed: undefined, maxAgeMs: 0, promptTokens: 0 };
  private matched = matchOf(32);

  constructor(instances: Instances) {
    this.instances = instances;
  }

  /**
   * `excluded`: instances that have already failed this request. `tokensPerBlock`: of this prompt. Without any
   * candidate `views` is empty.
   */
  take(context: GuardContext, hashes: Float64Array, tokensPerBlock: number, excluded: ReadonlySet<string>): Snapshot {
    const { snapshot } = this;
    snapshot.relaxed = undefined;
    snapshot.promptTokens = context.request.promptTokens;
    for (const { rules, relaxed } of ladder) {
      this.select(context, rules, excluded);
      snapshot.relaxed = relaxed;
      if (snapshot.views.length > 0) break;
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
    if (!context.request.exactTokens) snapshot.promptTokens = this.countPrompt(context.request, tokensPerBlock);
    snapshot.candidates.length = 0;
    snapshot.maxAgeMs = 0;
    for (const view of snapshot.views) {
      const candidate = this.candidate(view, context.nowMs);
      this.fillHit(candidate, view, hashes, tokensPerBlock);
      for (const reservation of view.reservations)
        addReservation(candidate, reservation.promptTokens, reservation.ownTokens);
      snapshot.maxAgeMs = Math.max(snapshot.maxAgeMs, candidate.ageMs);
      snapshot.candidates.push(candidate);
    }
  }

  private match(hashes: Float64Array): void {
    let highest = 0;
    for (const view of this.snapshot.views) highest = Math.max(highest, view.column);
    if (this.matched.depth.length <= highest) this.matched = matchOf(2 * (highest + 1));
    this.instances.index.match(hashes, this.matched);
  }

  /**
   * Tokens of the prompt: as doors have counted them as far as anybody has it cached, the rest by the text's length.
   */
  private countPrompt({ textTokens }: RoutingRequest, tokensPerBlock: number): number {
    let depth = 0;
    let told = 0;
    for (const { column } of this.snapshot.views) {
      const tokens = this.matched.tokens[column] as number;
      if (tokens === 0 || (this.matched.depth[column] as number) <= depth) continue;
      depth = this.matched.depth[column] as number;
      told = tokens;
    }
    return depth === 0 ? textTokens : Math.max(1, Math.round(told + Math.max(0, textTokens - depth * tokensPerBlock)));
  }

  /**
   * What of the prompt the candidate has cached, or is about to because of requests of this entry. Tokens are those the
   * door told; where it did not, estimates.
   */
  private fillHit(candidate: CandidateState, view: InstanceView, hashes: Float64Array, tokensPerBlock: number): void {
    const depth = this.matched.depth[view.column] as number;
    const told = this.matched.tokens[view.column] as number;
    let tokens = told > 0 ? told : depth * tokensPerBlock;
    const expected = view.expected.match(hashes);
    if (expected > depth)
      tokens =
        this.instances.index.tokensAt(hashes[expected - 1] as number) || tokens + (expected - depth) * tokensPerBlock;
    candidate.hitTokens = engineHitTokens(tokens, this.snapshot.promptTokens, candidate.report.limits.blockTokens);
  }

  private candidate(view: InstanceView, nowMs: number): CandidateState {
    const at = this.snapshot.candidates.length;
    const report = view.report as NonNullable<InstanceView['report']>;
    const candidate = (this.pool[at] ??= candidateOf(report));
    resetCandidate(candidate, report, Math.max(0, nowMs - view.describesMs), view.linkMs);
    return candidate;
  }
}

function matchOf(columns: number): PrefixMatch {
  return { depth: new Uint32Array(columns), tokens: new Uint32Array(columns) };
}
