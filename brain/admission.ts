import { z } from 'zod';
import type { Clock } from '../shared/env.ts';
import { FEATURE_SCHEMA } from '../shared/features.ts';
import { type HelloMessage, PROTOCOL_OLDEST, PROTOCOL_VERSION } from '../shared/protocol.ts';
import { digestOf } from '../shared/token.ts';
import type { BrainStore } from './store.ts';

/**
 * The part of a hello that every protocol version has: read before the rest, which another version may have changed.
 */
export const helloHeadSchema = z.object({
  t: z.literal('hello'),
  protocol: z.number().int(),
  protocolOldest: z.number().int(),
});

/** Why an agent is turned away. */
export interface Refusal {
  code: 'protocol-version' | 'feature-schema' | 'credential' | 'stale-epoch' | 'too-many-agents';
  reason: string;
}

/** A credential may be bound anew once its agent has been away for this long. */
const BINDING_KEPT_MS = 7 * 24 * 3600 * 1000;

/** Highest protocol version both sides speak, or the refusal that names both ranges. */
export function negotiate(head: z.infer<typeof helloHeadSchema>): number | Refusal {
  const common = Math.min(PROTOCOL_VERSION, head.protocol);
  if (common >= Math.max(PROTOCOL_OLDEST, head.protocolOldest)) return common;
  const ours = `${PROTOCOL_OLDEST} to ${PROTOCOL_VERSION}`;
  return {
    code: 'protocol-version',
    reason: `the agent speaks protocol ${head.protocolOldest} to ${head.protocol}, the brain ${ours}: upgrade the older side`,
  };
}

/**
 * Decides whether an agent may join. An id belongs to the credential it was first used with, so that a stranger who has
 * the fleet's token cannot take over another agent's instances. `connectedEpoch`: epoch of the agent's present
 * connection, if it has one.
 */
export function admit(
  hello: HelloMessage,
  store: BrainStore,
  clock: Clock,
  connectedEpoch: number | undefined,
): Refusal | null {
  if (hello.featureSchema !== FEATURE_SCHEMA) {
    return {
      code: 'feature-schema',
      reason: `the agent has feature schema ${hello.featureSchema}, the brain ${FEATURE_SCHEMA}: run the same version on both`,
    };
  }
  const digest = digestOf(hello.credential).toString('hex');
  const binding = store.binding(hello.agent);
  const now = clock.wallMs();
  if (
    binding &&
    binding.digest !== digest &&
    (connectedEpoch !== undefined || now - binding.lastSeenWallMs < BINDING_KEPT_MS)
  ) {
    return {
      code: 'credential',
      reason: `agent id ${hello.agent} belongs to another credential: give this agent its own agent.id, or restore the credential file in its stateDir`,
    };
  }
  if (connectedEpoch !== undefined && hello.epoch < connectedEpoch) {
    return {
      code: 'stale-epoch',
      reason: `a newer boot (${connectedEpoch}) of agent ${hello.agent} is connected; this one is ${hello.epoch}`,
    };
  }
  store.saveBinding(hello.agent, { digest, lastSeenWallMs: now });
  return null;
}

/** Remembers that the agent was here until now. */
export function noteDeparture(agent: string, store: BrainStore, clock: Clock): void {
  const binding = store.binding(agent);
  if (binding) store.saveBinding(agent, { ...binding, lastSeenWallMs: clock.wallMs() });
}
