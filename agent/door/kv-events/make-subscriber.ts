import type { InstanceConfig } from '../../../shared/config/index.ts';
import type { Env } from '../../../shared/env.ts';
import type { KvEventSink } from './kv-event.ts';
import { KvEventSubscriber } from './subscriber.ts';

/**
 * Where a rank's events are: vLLM adds the rank to the port of its endpoint. Sockets of a file have no port and stay as
 * they are.
 */
export function endpointOfRank(endpoint: string, rank: number): string {
  return endpoint.replace(/^(tcp:.*:)(\d+)$/, (_, host: string, port: string) => `${host}${Number(port) + rank}`);
}

/** The subscriber of an instance, stopped; undefined where its KV events are not configured. */
export function makeKvEventSubscriber(
  config: InstanceConfig,
  sink: KvEventSink,
  env: Pick<Env, 'clock' | 'log'>,
): KvEventSubscriber | undefined {
  const { id, kvEvents, dataParallelRank: rank } = config;
  if (!kvEvents) return undefined;
  return new KvEventSubscriber({
    instance: id,
    endpoint: endpointOfRank(kvEvents.endpoint, rank ?? 0),
    replayEndpoint:
      kvEvents.replayEndpoint === undefined ? undefined : endpointOfRank(kvEvents.replayEndpoint, rank ?? 0),
    rank,
    sink,
    env,
  });
}
