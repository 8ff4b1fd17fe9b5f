import { parseArgs } from 'node:util';
import { realClock } from '../../../shared/env.ts';
import { errorMessage } from '../../../shared/errors.ts';
import { type LoadResult, runLoad } from '../../../sim/workloads/index.ts';
import { MODEL } from '../scrape.ts';
import { startLodestar } from './lodestar.ts';
import { installPeers, PEERS, type PeerName, startPeer } from './peers.ts';
import { conversation, type Traffic } from './requests.ts';
import type { Router } from './router.ts';
import { type GpuServer, lostSteps, resetServers, startServers } from './servers.ts';
import { line, printTable, type Row } from './table.ts';

const REQUESTS = 360;
const RPS = 4.5;
const WARM_UP_S = 60;
const TIMEOUT_MS = 300_000;

/** One line of the table: a router that has just been started, with or without traffic before what is measured. */
interface Contestant {
  name: string;
  warm: boolean;
  start: (servers: readonly GpuServer[]) => Promise<Router>;
}

const lodestar = (name: string, policy: 'learned' | 'prefix-load', warm: boolean): Contestant => ({
  name,
  warm,
  start: (servers) => startLodestar(servers, policy),
});
const peer = (name: PeerName): Contestant => ({ name, warm: false, start: (servers) => startPeer(name, servers) });

const CONTESTANTS: readonly Contestant[] = [
  lodestar('learned, cold', 'learned', false),
  lodestar('learned, after a minute', 'learned', true),
  lodestar('prefix-load', 'prefix-load', false),
  ...(Object.keys(PEERS) as PeerName[]).map(peer),
];

/**
 * `npm run bench:vllm [router …] [--requests N]`: three real vLLM servers with the step times of an A30, an L20 and an
 * A100; the same requests through each router in turn, which is started anew, before emptied caches. About ten minutes;
 * on a quiet machine, if the figures are to mean something.
 */
async function main(names: readonly string[], count: number): Promise<boolean> {
  const installed: readonly string[] = installPeers();
  const chosen = CONTESTANTS.filter(({ name }) => names.length === 0 || names.some((part) => name.startsWith(part)));
  if (chosen.length === 0)
    throw new Error(`no such router; there are ${CONTESTANTS.map(({ name }) => name).join('; ')}`);
  const measured = conversation(0, count, RPS);
  const warmUp = conversation(count, Math.round(WARM_UP_S * RPS), RPS);
  const servers = await startServers();
  const rows: Row[] = [];
  try {
    for (const contestant of chosen) {
      if (contestant.name in PEERS && !installed.includes(contestant.name))
        console.log(`${contestant.name}: left out, it could not be installed`);
      else rows.push(...(await compete(contestant, servers, measured, warmUp)));
    }
  } finally {
    await Promise.all(servers.map(({ server }) => server.stop()));
  }
  printTable(
    rows,
    `${count} requests of the Mooncake conversation trace / 8, ${RPS} a second, on vLLM as A30, L20 and A100`,
  );
  return rows.length > 0;
}

/** No row if the router does not start. */
async function compete(
  { name, warm, start }: Contestant,
  servers: readonly GpuServer[],
  measured: Traffic,
  warmUp: Traffic,
): Promise<Row[]> {
  console.log(`${name} …`);
  await resetServers(servers);
  let router: Router;
  try {
    router = await start(servers);
  } catch (error) {
    console.log(`${name}: left out: ${errorMessage(error)}`);
    return [];
  }
  try {
    if (warm) await load(router, warmUp);
    await resetServers(servers);
    await router.resetCaches?.();
    const before = lostSteps(servers);
    const result = await load(router, measured);
    await resetServers(servers);
    const after = lostSteps(servers);
    if (result.failed === 0 && result.promptTokens !== measured.promptTokens) {
      throw new Error(
        `the servers counted ${result.promptTokens} prompt tokens, the trace has ${measured.promptTokens}`,
      );
    }
    const row = { name, result, lostRatio: (after.lostMs - before.lostMs) / (after.stepMs - before.stepMs) };
    console.log(line(row));
    return [row];
  } finally {
    await router.stop();
  }
}

function load({ urls }: Router, { requests }: Traffic): Promise<LoadResult> {
  return runLoad({ urls, requests, api: 'completions', model: MODEL, clock: realClock, timeoutMs: TIMEOUT_MS });
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { requests: { type: 'string', default: String(REQUESTS) } },
});
process.exitCode = (await main(positionals, Number(values.requests))) ? 0 : 1;
