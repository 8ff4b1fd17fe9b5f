import type { Config } from './schema.ts';

/** Keys that have no effect any more and are accepted for one version, with what takes their place. */
const RETIRED = {
  firstByteTimeoutMs:
    'how long to wait for an engine is decided on facts; agent.requestTimeoutMs bounds a whole request',
  idleTimeoutMs:
    'how long to wait for an engine is decided on facts; agent.slowClientTimeoutMs bounds a client that does not read',
} as const;

/** One line for each key in the configuration that has no effect any more. */
export function retiredKeys({ agent }: Config): string[] {
  return Object.entries(RETIRED)
    .filter(([name]) => agent[name as keyof typeof RETIRED] !== undefined)
    .map(
      ([name, instead]) =>
        `agent.${name} has no effect any more: ${instead}. Remove it; the next version will refuse it.`,
    );
}
