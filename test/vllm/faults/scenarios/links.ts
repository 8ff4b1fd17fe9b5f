import { setTimeout as sleep } from 'node:timers/promises';
import { scrape } from '../../scrape.ts';
import { until } from '../../until.ts';
import { atMost, exactly, type Figure, told } from '../figure.ts';
import type { Direction } from '../link.ts';
import { allOver, endsWithError, failures, isWhole, shoot, shootFor, type Shot } from '../load.ts';
import type { FaultRig, Topology } from '../rig.ts';

/** Long enough that a slot which is held would still be held when it is looked for. */
const LONG_TOKENS = 1500;
const LONG = 16;
/** The servers' step. */
const MIN_TOKEN_MS = 20;
const SHORT_TOKENS = 25;
const SHORT_PER_SECOND = 4;
const BEFORE_MS = 3000;
const SHORT_MS = 12_000;
const LOOK_MS = 15_000;
const WITHIN_S = 6;
const BACK_S = 10;

/** The link between entry and door carries nothing in one direction or both, while all sockets stay open. */
export async function cutLink(rig: FaultRig): Promise<Figure[]> {
  const cuts: [string, Direction[]][] = [
    ['to the door', ['up']],
    ['from the door', ['down']],
    ['both ways', ['up', 'down']],
  ];
  const figures: Figure[] = [];
  for (const [name, directions] of cuts) {
    const topology = await rig.pair();
    const { link } = topology;
    try {
      figures.push(
        ...(await breakUnderLoad(`${name}: `, rig, topology, {
          begin: () => link?.drop(...directions),
          end: () => link?.restore(),
        })),
      );
    } finally {
      await topology.stop();
    }
    await rig.rest();
  }
  return figures;
}

/**
 * The door's agent is killed and started again at once, with its connections reset, and with an entry that does not
 * learn of it.
 */
export async function doorRestart(rig: FaultRig): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const isReset of [true, false]) {
    const topology = await rig.pair();
    const { door, link } = topology;
    const begin = async (): Promise<void> => {
      if (!isReset) link?.dropOpen('up', 'down');
      await door?.kill();
      await door?.start();
    };
    try {
      figures.push(
        ...(await breakUnderLoad(isReset ? 'reset: ' : 'no reset: ', rig, topology, {
          begin,
          end: () => link?.restore(),
        })),
      );
    } finally {
      await topology.stop();
    }
    await rig.rest();
  }
  return figures;
}

/** Long requests run on both servers when the fault begins; short ones come all the time. All of them by the entry. */
async function breakUnderLoad(
  prefix: string,
  rig: FaultRig,
  { entry }: Topology,
  { begin, end }: { begin(): unknown; end(): unknown },
): Promise<Figure[]> {
  const sinceWallMs = Date.now();
  const long = Array.from({ length: LONG }, (_, i) => shoot(entry.url, { tokens: LONG_TOKENS, stream: i % 4 > 1 }));
  await sleep(BEFORE_MS);
  const heldBefore = (await scrape(rig.a.url)).running;
  const [beganMs, beganWallMs] = [performance.now(), Date.now()];
  await begin();
  const short: Shot[] = [];
  await shootFor(
    SHORT_MS,
    SHORT_PER_SECOND,
    (i) => shoot(entry.url, { tokens: SHORT_TOKENS, stream: i % 2 === 0 }),
    short,
  );
  await sleep(LOOK_MS - (performance.now() - beganMs));
  const held = (await scrape(rig.a.url)).running;
  await end();
  const backMs = performance.now();
  await until('a answers again', async () => {
    const [one] = await shootFor(1, 1, () => shoot(entry.url, { tokens: 1 }));
    await (one as Shot).over;
    return (one as Shot).instance === 'a';
  });
  const backS = (performance.now() - backMs) / 1000;
  await allOver([...long, ...short]);
  const receipts = await entry.receipts(sinceWallMs);
  const begun = long.filter((one) => one.stream && one.instance === 'a');
  // Of the long ones: a short one does not take this long to compute.
  const moved = receipts.filter(
    (one) => one.attempt > 0 && one.chosen !== 'a' && one.e2eMs > LONG_TOKENS * MIN_TOKEN_MS,
  );
  const failed = [...long, ...short].filter((one) => !isWhole(one) && !begun.includes(one));
  if (failed.length > 0) console.log(failures(failed));
  const slowestShort = Math.max(...short.map((one) => (one.endMs as number) - one.sentMs));
  const there = receipts.filter((one) => one.chosen === 'a' && one.ending !== 'answered').map((one) => one.ending);
  return [
    told(`${prefix}slots held at the server before`, String(heldBefore)),
    exactly(`${prefix}slots held ${LOOK_MS / 1000} s after`, held, 0),
    exactly(`${prefix}requests that failed without having begun, of ${long.length + short.length}`, failed.length, 0),
    atMost(
      `${prefix}the last of ${moved.length} long ones that moved without a byte`,
      Math.max(0, ...moved.map((one) => one.atWallMs - beganWallMs)) / 1000,
      WITHIN_S,
      's',
    ),
    exactly(
      `${prefix}begun streams that ended with an error event, of ${begun.length}`,
      begun.filter(endsWithError).length,
      begun.length,
    ),
    atMost(
      `${prefix}the last of these`,
      Math.max(0, ...begun.map((one) => (one.endMs as number) - beganMs)) / 1000,
      WITHIN_S,
      's',
    ),
    atMost(`${prefix}slowest of the ${short.length} short requests sent since`, slowestShort / 1000, WITHIN_S, 's'),
    atMost(`${prefix}until the server answered again`, backS, BACK_S, 's'),
    told(
      `${prefix}attempts there that failed`,
      [...new Set(there)].map((ending) => `${there.filter((one) => one === ending).length} ${ending}`).join(', '),
    ),
  ];
}
