import { setTimeout as sleep } from 'node:timers/promises';
import type { KvEventSink } from '../../../agent/door/kv-events/kv-event.ts';
import { KvEventSubscriber } from '../../../agent/door/kv-events/subscriber.ts';
import { realClock, silentLog } from '../../../shared/env.ts';
import { ENGINE_BLOCK_TOKENS } from '../../../sim/fleet/plan.ts';
import { until } from '../until.ts';
import { DoorRecord } from './door-record.ts';
import { documents } from './loads.ts';
import type { ViewRig } from './rig.ts';

const CUT_MS = 10_000;
/** Traffic before and after the cut. */
const AROUND_MS = 5000;
const PROBE_MS = 10_000;
const POLL_MS = 5;
const TARGET_CUT_MS = 2000;
const TARGET_RESTART_MS = 1000;
const NO_SINK: KvEventSink = { begin: () => undefined, apply: () => undefined, fail: () => undefined };

/** Cuts the links of the events for 10 s under traffic, then kills vLLM; a line of text for each. */
export async function measureFaults(rig: ViewRig): Promise<string[]> {
  return [await cutLinks(rig), await restart(rig)];
}

/** A second subscriber, whose link is not cut, tells which events there are. */
async function cutLinks({ door, links, endpoints, send }: ViewRig): Promise<string> {
  const [endpoint, replayEndpoint] = endpoints as [string, string];
  const reference = new KvEventSubscriber({
    instance: 'reference',
    endpoint,
    replayEndpoint,
    rank: undefined,
    sink: NO_SINK,
    env: { clock: realClock, log: silentLog },
  });
  reference.start();
  const own = door.kvEvents as KvEventSubscriber;
  const seqs = (): [number, number] => [own.latest().value.lastSeq ?? -1, reference.latest().value.lastSeq ?? -1];
  try {
    const traffic = documents(send, AROUND_MS + CUT_MS + AROUND_MS);
    await sleep(AROUND_MS);
    const before = own.latest().value;
    for (const link of links) link.cut();
    await sleep(CUT_MS);
    const [had, all] = seqs();
    const restoredMs = performance.now();
    for (const link of links) link.restore();
    await until('the events that were missed are applied', () => {
      const [mine, its] = seqs();
      return mine >= its && mine > had && door.cache.figures().source === 'events';
    });
    const tookMs = performance.now() - restoredMs;
    await traffic;
    const { lost, gaps } = own.latest().value;
    const record = new DoorRecord(door);
    await documents(send, PROBE_MS);
    const right = record.rows.filter(
      ({ doorHitTokens, cachedTokens }) => Math.abs(doorHitTokens - cachedTokens) <= ENGINE_BLOCK_TOKENS,
    ).length;
    return (
      `links cut for ${CUT_MS / 1000} s: ${all - had} batches missed, ${lost - before.lost} lost, ${gaps - before.gaps} gaps; exact again after ${tookMs.toFixed(0)} ms (target ${TARGET_CUT_MS}); ` +
      `then ${right} of ${record.rows.length} requests to within a block`
    );
  } finally {
    reference.stop();
  }
}

/** From the first answer of the new process until nothing of the old one's cache is in the view. */
async function restart({ door, server, send }: ViewRig): Promise<string> {
  const blocks = door.cache.blockCount;
  const crashedMs = performance.now();
  await server.crash();
  server.relaunch();
  let upMs: number | undefined;
  void server.untilServing().then(() => (upMs = performance.now()));
  let emptyMs: number | undefined;
  const timer = setInterval(() => {
    if (door.cache.blockCount === 0) emptyMs ??= performance.now();
  }, POLL_MS);
  try {
    await until('vLLM is back and the view is empty', () => upMs !== undefined && emptyMs !== undefined, 120_000);
    await until('the door sees vLLM up', () => door.health === 'up');
    await documents(send, PROBE_MS / 2);
    const figures = door.cache.figures();
    const after = (emptyMs as number) - (upMs as number);
    return (
      `vLLM killed with ${blocks} blocks in the view: serving again after ${(((upMs as number) - crashedMs) / 1000).toFixed(1)} s, the view empty ${after < 0 ? `${(-after).toFixed(0)} ms before that` : `${after.toFixed(0)} ms later`} ` +
      `(target ${TARGET_RESTART_MS}); after some traffic it rests on ${figures.source}${figures.problem ? ` (${figures.problem})` : ''}`
    );
  } finally {
    clearInterval(timer);
  }
}
