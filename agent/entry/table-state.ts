import { FALLBACK_POLICY, policies, type PolicyName } from '../../shared/choice/policies/index.ts';
import type { Policy, PolicyOutcome } from '../../shared/choice/policies/policy.ts';
import { objectives, type ObjectiveName } from '../../shared/choice/objectives/index.ts';
import type { AgentConfig } from '../../shared/config/index.ts';
import type { Env } from '../../shared/env.ts';
import { makeScorer } from '../../shared/predictor/kernel.ts';
import type { NetScorer } from '../../shared/predictor/net.ts';
import type { Regime } from '../../shared/sample.ts';
import { type RoutingTable, tableNet } from '../../shared/table.ts';
import { TrustGate } from '../../shared/trust.ts';

/** Most candidates scored in one call; larger fleets are scored in slices of this. */
export const MAX_ROWS = 256;
/** An entry distrusts a table that the brain trusts only on clear evidence of its own. */
const LOCAL_TRUST = { minSamples: 24, maxMedianApe: 0.6 };
const VERDICT_EVERY = 8;

/** The policy that decides now, and why it and no other. */
export interface InForce {
  policy: PolicyName;
  reason: string;
}

/** The routing table in force at an entry, ready to score, with the entry's own judgement of it. */
export class TableState {
  table: RoutingTable | undefined;
  scorer: NetScorer | undefined;
  private readonly config: AgentConfig;
  private readonly env: Env;
  private readonly made = new Map<PolicyName, Policy>();
  private gate = new TrustGate(LOCAL_TRUST, true);
  private noted = 0;
  private localTrust = true;
  private localReason = 'no outcome of its own yet';
  private lastSaid = '';

  constructor(config: AgentConfig, env: Env) {
    this.config = config;
    this.env = env;
  }

  apply(table: RoutingTable): void {
    const net = tableNet(table);
    this.table = table;
    this.scorer = net ? makeScorer(net, MAX_ROWS) : undefined;
    this.say();
  }

  get objective(): ObjectiveName {
    return this.table?.objective ?? this.config.objective;
  }

  /** Weights of the price: the table's, or those that suit the objective. */
  get weights() {
    return this.table?.weights ?? objectives[this.objective].weights;
  }

  /**
   * Which policy decides a request in this regime; undefined asks for the general answer. The physics prior needs no
   * training, and from the first request on it is no worse than any heuristic (docs/decisions/0007-trust.md):
   * predictions route until they are shown to be wrong.
   */
  inForce(regime: Regime | undefined): InForce {
    const wanted = this.config.policy ?? this.table?.policy;
    if (wanted !== undefined && wanted !== 'learned')
      return { policy: wanted, reason: this.config.policy ? 'config' : 'table' };
    if (!this.localTrust) return { policy: FALLBACK_POLICY, reason: 'fallback:local-distrust' };
    if (!this.table) return { policy: 'learned', reason: 'no-table' };
    const { trust } = this.table;
    if (trust.verdict === 'untrusted') return { policy: FALLBACK_POLICY, reason: 'fallback:untrusted' };
    if (regime !== undefined && trust.regimes[regime] === 'untrusted')
      return { policy: FALLBACK_POLICY, reason: `fallback:untrusted-${regime}` };
    return { policy: 'learned', reason: trust.verdict };
  }

  policy(name: PolicyName): Policy {
    let policy = this.made.get(name);
    if (!policy) {
      policy = policies[name].create(this.env);
      this.made.set(name, policy);
    }
    return policy;
  }

  /**
   * Routes by this policy object whenever the policy of that name is in force: simulated entries share those of central
   * gateways.
   */
  usePolicy(name: PolicyName, policy: Policy): void {
    this.made.set(name, policy);
  }

  /** What became of a request, told to the policy that chose for it. */
  tellPolicy(name: PolicyName, outcome: PolicyOutcome, memo: unknown): void {
    this.made.get(name)?.observe?.(outcome, memo);
  }

  /** One of this entry's own requests got its first byte: was the prediction for it right? */
  noteOutcome(predictedMs: number, p90Ms: number, observedMs: number, regime: Regime): void {
    const nowMs = this.env.clock.nowMs();
    this.gate.note(predictedMs, p90Ms, observedMs, regime, nowMs);
    this.noted += 1;
    if (this.noted % VERDICT_EVERY !== 0) return;
    const verdict = this.gate.verdict(nowMs);
    this.localTrust = verdict.verdict === 'trusted';
    this.localReason = verdict.reason;
    this.say();
  }

  status() {
    const { policy, reason } = this.inForce(undefined);
    return {
      policy,
      reason,
      objective: this.objective,
      tableVersion: this.table?.version ?? null,
      tableAgeMs: this.table ? Math.max(0, this.env.clock.wallMs() - this.table.atWallMs) : null,
      scorer: this.scorer?.kind ?? 'prior-only',
      trust: this.table?.trust ?? null,
      localTrust: { trusted: this.localTrust, reason: this.localReason },
    };
  }

  /** Says in the log when the policy in force changes: an operator must never wonder what routes. */
  private say(): void {
    const { policy, reason } = this.inForce(undefined);
    const said = `${policy}, ${reason}`;
    if (said === this.lastSaid) return;
    this.lastSaid = said;
    const trust = this.table?.trust.reason;
    this.env.log.info(
      { policy, reason, tableVersion: this.table?.version, trust, local: this.localReason },
      `routing by ${policy} (${reason})`,
    );
  }
}
