import { setTimeout as sleep } from 'node:timers/promises';
import { scrape } from '../../scrape.ts';
import { atLeast, exactly, type Figure, told } from '../figure.ts';
import { allOver, failures, isWhole, shoot, shootFor, tookMs } from '../load.ts';
import type { AgentProcess, FaultRig, Topology } from '../rig.ts';

const POISON_MS = 30_000;
const PER_SECOND = 10;
const GOOD_TOKENS = 10;
/** A grammar that vLLM 0.29 accepts and then fails on: 500 without a stream, an error event in one. */
const POISON = { structured_outputs: { grammar: 'root ::= ' } };
const CHAT = { prompt: undefined, messages: [{ role: 'user', content: 'hello' }] };

/** A request that any engine fails on, ten times a second beside ten good ones. */
export async function poison(rig: FaultRig): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const servers of [['a', 'b'], ['a']] as const) {
    const { entry, stop } = await rig.single({}, servers);
    try {
      const name = servers.length === 1 ? 'one server' : 'two servers';
      const [good, bad] = await Promise.all([
        shootFor(POISON_MS, PER_SECOND, (i) => shoot(entry.url, { tokens: GOOD_TOKENS, stream: i % 2 === 0 })),
        shootFor(POISON_MS, PER_SECOND, () =>
          shoot(entry.url, { tokens: GOOD_TOKENS, path: '/v1/chat/completions', body: { ...CHAT, ...POISON } }),
        ),
      ]);
      await allOver([...good, ...bad]);
      const failed = good.filter((one) => !isWhole(one));
      if (failed.length > 0) console.log(failures(failed));
      figures.push(
        exactly(`${name}: good requests that failed, of ${good.length}`, failed.length, 0),
        exactly(
          `${name}: poisoned ones that got vLLM's own 500, of ${bad.length}`,
          bad.filter((one) => one.status === 500 && one.body.includes('Internal server error')).length,
          bad.length,
        ),
        told(`${name}: slowest good request`, `${Math.max(...good.map(tookMs)).toFixed(0)} ms`),
      );
    } finally {
      await stop();
    }
    await rig.rest();
  }
  return figures;
}

const LONG_TOKENS = 7450;
const LONG_S = 150;

/** Two generations of 150 s without streaming, one on the entry's own engine and one over a hop. */
export async function long(rig: FaultRig): Promise<Figure[]> {
  const { entry, door, stop } = await rig.pair();
  try {
    await rig.rest();
    const before = await rig.totals();
    const shots = [0, 1].map(() => shoot(entry.url, { tokens: LONG_TOKENS }));
    await allOver(shots);
    const after = await rig.totals();
    const log = entry.log() + (door?.log() ?? '');
    return [
      exactly('generations that arrived whole, of 2', shots.filter(isWhole).length, 2),
      atLeast('the shorter of the two', Math.min(...shots.map(tookMs)) / 1000, LONG_S, 's'),
      told(
        'servers that computed them',
        shots
          .map((one) => one.instance ?? '-')
          .toSorted()
          .join(' '),
      ),
      exactly(
        'tokens computed more than asked for',
        after.generationTokens - before.generationTokens - 2 * LONG_TOKENS,
        0,
      ),
      exactly('times that an agent ended something', endedIn(log), 0),
    ];
  } finally {
    await stop();
  }
}

const SDK_TOKENS = 600;
const SDK_PATIENCE_S = 3;

/**
 * Streams and plain answers that take longer than the timeouts in the official SDKs' headers, which are between bytes
 * or until the headers, and the client's own business.
 */
export async function sdkHeaders(rig: FaultRig): Promise<Figure[]> {
  const { entry, stop } = await rig.pair();
  const javaScript = {
    'x-stainless-lang': 'js',
    'x-stainless-retry-count': '0',
    'x-stainless-timeout': String(SDK_PATIENCE_S),
  };
  const python = {
    'x-stainless-lang': 'python',
    'x-stainless-retry-count': '0',
    'x-stainless-read-timeout': String(SDK_PATIENCE_S),
    'x-stainless-async': 'false',
  };
  try {
    const shots = [javaScript, python].flatMap((headers) =>
      [true, true, false, false].map((stream) => shoot(entry.url, { tokens: SDK_TOKENS, stream, headers })),
    );
    await allOver(shots);
    if (!shots.every(isWhole)) console.log(failures(shots));
    return [
      exactly(
        `requests with a timeout of ${SDK_PATIENCE_S} s in their headers that were cut, of ${shots.length}`,
        shots.filter((one) => !isWhole(one)).length,
        0,
      ),
      atLeast('the shortest of them', Math.min(...shots.map(tookMs)) / 1000, 2 * SDK_PATIENCE_S, 's'),
    ];
  } finally {
    await stop();
  }
}

const STALL_MS = 4000;
const STALL_TOKENS = 500;

/**
 * The agent itself is stopped for 4 s: the one process that is door of both engines, and either of a pair. To its
 * entry, a door that stands still looks like one whose link is cut: no promise is made for it.
 */
export async function ownStall(rig: FaultRig): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const who of ['door of both engines', 'entry of a pair', 'door of a pair'] as const) {
    const topology = await (who === 'door of both engines' ? rig.single() : rig.pair());
    try {
      const found = await stall(who, topology, rig, who === 'door of a pair' ? topology.door : topology.entry);
      figures.push(...(who === 'door of a pair' ? found.map(({ name, measured }) => told(name, measured)) : found));
    } finally {
      await topology.stop();
    }
    await rig.rest();
  }
  return figures;
}

async function stall(
  name: string,
  { entry, door }: Topology,
  rig: FaultRig,
  victim: AgentProcess | undefined,
): Promise<Figure[]> {
  const before = await rig.totals();
  const shots = Array.from({ length: 12 }, (_, i) => shoot(entry.url, { tokens: STALL_TOKENS, stream: i % 3 > 0 }));
  await sleep(2000);
  victim?.signal('SIGSTOP');
  await sleep(STALL_MS);
  victim?.signal('SIGCONT');
  const resumedMs = performance.now();
  let wasDown = 0;
  while (performance.now() - resumedMs < 2000) {
    wasDown += (await entry.status()).instances.filter((one) => one.health !== 'up').length;
    await sleep(20);
  }
  await allOver(shots);
  const after = await rig.totals();
  if (!shots.every(isWhole)) console.log(failures(shots));
  const log = entry.log() + (door?.log() ?? '');
  return [
    exactly(
      `${name}: running requests that failed, of ${shots.length}`,
      shots.filter((one) => !isWhole(one)).length,
      0,
    ),
    exactly(`${name}: looks within 2 s that showed an engine down`, wasDown, 0),
    exactly(`${name}: times that an agent ended something`, endedIn(log), 0),
    exactly(
      `${name}: tokens computed more than asked for`,
      after.generationTokens - before.generationTokens - shots.length * STALL_TOKENS,
      0,
    ),
  ];
}

/** How often agents say in their log that they have ended what ran at an engine. */
export function endedIn(log: string): number {
  return log.split('ended what ran there').length - 1;
}

const SHORT_MS = 2000;
const SHORT_TOKENS = 200;

/** All of one server stands still for 2 s, with twenty plain generations running on the two. */
export async function stopShort(rig: FaultRig): Promise<Figure[]> {
  const { entry, door, stop } = await rig.pair();
  try {
    const before = await rig.totals();
    const shots = Array.from({ length: 20 }, () => shoot(entry.url, { tokens: SHORT_TOKENS }));
    await sleep(1500);
    const atA = (await scrape(rig.a.url)).running;
    rig.a.freeze();
    await sleep(SHORT_MS);
    rig.a.thaw();
    await allOver(shots);
    const after = await rig.totals();
    if (!shots.every(isWhole)) console.log(failures(shots));
    return [
      atLeast('generations that ran on the stopped server', atA, 5),
      exactly('generations that failed, of 20', shots.filter((one) => !isWhole(one)).length, 0),
      exactly(
        'tokens computed more than asked for',
        after.generationTokens - before.generationTokens - shots.length * SHORT_TOKENS,
        0,
      ),
      exactly('times that an agent ended something', endedIn(entry.log() + (door?.log() ?? '')), 0),
    ];
  } finally {
    rig.a.thaw();
    await stop();
  }
}
