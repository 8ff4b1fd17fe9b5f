import { request } from 'undici';
import { z } from 'zod';
import { parsePrometheus, type PrometheusPage } from '../../agent/door/collectors/prometheus-text.ts';
import type { PolicyName } from '../../shared/choice/policies/index.ts';
import { errorMessage, LodestarError } from '../../shared/errors.ts';
import { trustSchema } from '../../shared/table.ts';
import type { Fleet, FleetNode } from './fleet.ts';

const TIMEOUT_MS = 5000;

const brainStatus = z.object({
  trust: trustSchema,
  table: z.object({ version: z.number() }).nullable(),
  backend: z.object({ name: z.string().nullable(), gpu: z.boolean() }),
  policy: z.object({ policy: z.string(), inForce: z.string(), why: z.string() }),
  learner: z.object({
    rounds: z.number(),
    accepted: z.number(),
    champion: z.string(),
    samples: z.object({ received: z.number() }),
  }),
  instances: z.array(
    z.object({
      instance: z.string(),
      kind: z.string(),
      health: z.string(),
      inFlight: z.number(),
      waiting: z.number(),
      gpuUtilRatio: z.number().nullable(),
    }),
  ),
});

const agentStatus = z.object({
  agent: z.string(),
  inFlight: z.number(),
  routing: z.object({ policy: z.string(), reason: z.string(), tableVersion: z.number().nullable() }),
  cacheIndexBlocks: z.number(),
  instances: z.array(
    z.object({ instance: z.string(), health: z.string(), ledger: z.object({ inFlight: z.number() }).nullable() }),
  ),
});

/** What the demo reads of the brain's status page. */
export type BrainView = z.infer<typeof brainStatus>;
/** What the demo reads of an agent's status page. */
export type AgentView = z.infer<typeof agentStatus>;

/**
 * The fleet over HTTP, as an operator has it. Every call rejects with UPSTREAM_FAILED when it is not answered well
 * within 5 s.
 */
export class FleetClient {
  private readonly fleet: Pick<Fleet, 'brainUrl' | 'token' | 'nodes'>;

  constructor(fleet: Pick<Fleet, 'brainUrl' | 'token' | 'nodes'>) {
    this.fleet = fleet;
  }

  get nodes(): readonly FleetNode[] {
    return this.fleet.nodes;
  }

  async brain(): Promise<BrainView> {
    return brainStatus.parse(JSON.parse(await this.call('GET', `${this.fleet.brainUrl}/lodestar/status`)));
  }

  agents(): Promise<AgentView[]> {
    return Promise.all(
      this.nodes.map(async ({ agentUrl }) =>
        agentStatus.parse(JSON.parse(await this.call('GET', `${agentUrl}/lodestar/status`))),
      ),
    );
  }

  /** The metrics pages of all agents or of all engines, less the series that are not named. */
  metrics(of: 'agentUrl' | 'engineUrl', names: ReadonlySet<string>): Promise<PrometheusPage[]> {
    return Promise.all(
      this.nodes.map(async (node) => parsePrometheus(await this.call('GET', `${node[of]}/metrics`), names)),
    );
  }

  /** Publishes a table with this policy; settles with its version. */
  async choosePolicy(policy: PolicyName): Promise<number> {
    await this.call('PUT', `${this.fleet.brainUrl}/lodestar/policy`, JSON.stringify({ policy }));
    return (await this.brain()).table?.version ?? 0;
  }

  /** Empties the prefix caches of all engines, and with them what their doors believe. */
  async resetCaches(): Promise<void> {
    await Promise.all(
      this.nodes.map(({ agentUrl, instance }) =>
        this.call('POST', `${agentUrl}/lodestar/instances/${instance}/reset-prefix-cache`),
      ),
    );
  }

  private async call(method: 'GET' | 'PUT' | 'POST', url: string, body?: string): Promise<string> {
    const headers = {
      authorization: `Bearer ${this.fleet.token}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    };
    try {
      const answer = await request(url, {
        method,
        headers,
        body: body ?? null,
        headersTimeout: TIMEOUT_MS,
        bodyTimeout: TIMEOUT_MS,
      });
      const text = await answer.body.text();
      if (answer.statusCode !== 200)
        throw new LodestarError('UPSTREAM_FAILED', `answered ${answer.statusCode}: ${text.slice(0, 200)}`);
      return text;
    } catch (error) {
      throw new LodestarError('UPSTREAM_FAILED', `${method} ${url}: ${errorMessage(error)}`, { cause: error });
    }
  }
}
