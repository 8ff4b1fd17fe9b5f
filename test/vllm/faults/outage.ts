import { setTimeout as sleep } from 'node:timers/promises';
import type { Receipt } from '../../../agent/entry/receipts.ts';
import { scrape } from '../scrape.ts';
import { until } from '../until.ts';
import { allOver, endsWithError, failures, isWhole, shoot, shootFor, type Shot, tookMs } from './load.ts';
import type { FaultRig, Topology } from './rig.ts';

const PER_SECOND = 5;
/** Requests that run when the fault begins: half of them streams. */
const EARLY = 12;
const EARLY_TOKENS = 400;
/** Each of the steady load. */
const TOKENS = 50;
const BEFORE_MS = 3000;
const BACK_MS = 30_000;
/** Slower than this beyond its own computing, a request has waited for the fault. */
const NOTICEABLE_MS = 1000;

export interface OutageOptions {
  begin(): unknown;
  end(): unknown;
  lastsMs: number;
}

/**
 * What clients saw of an outage of `a`. Times in s, from the beginning of the outage or from when a request was sent,
 * if that was later.
 */
export interface Outage {
  /** all requests, and those that neither got their whole answer nor, begun before, an error event */
  requests: number;
  failed: number;
  /** the last attempt that was sent to `a` during the outage */
  lastAttemptS: number;
  /** requests that waited for it without a byte, and the longest wait beyond their own computing */
  moved: number;
  movedS: number;
  /** streams that had begun there, those that ended with an error event, and the latest end */
  begun: number;
  begunWithError: number;
  begunS: number;
  /** finished early by vLLM itself, with `finish_reason: abort` */
  abortedByEngine: number;
  /** from the end of the outage until `a` answered a request again, s */
  backS: number;
  /** attempts at `a` by how they ended */
  endings: string;
  /** requests at the server when all were over */
  leftAtServer: number;
}

/** Load on both servers through all agents, in which `a` fails and comes back. */
export async function outage(
  rig: FaultRig,
  { entry, door }: Topology,
  { begin, end, lastsMs }: OutageOptions,
): Promise<Outage> {
  const urls = [entry.url, (door ?? entry).url];
  const sinceWallMs = Date.now();
  const shots: Shot[] = Array.from({ length: EARLY }, (_, i) =>
    shoot(urls[(i >> 1) % 2] as string, { tokens: EARLY_TOKENS, stream: (i >> 2) % 2 === 0 }),
  );
  const steady = shootFor(
    BEFORE_MS + lastsMs + BACK_MS / 2,
    PER_SECOND,
    (i) => shoot(urls[(i >> 1) % 2] as string, { tokens: TOKENS, stream: (i >> 2) % 2 === 0 }),
    shots,
  );
  await sleep(BEFORE_MS);
  const [beganMs, beganWallMs] = [performance.now(), Date.now()];
  const begunBefore = new Set(shots.filter((one) => one.firstByteMs !== undefined && one.endMs === undefined));
  await begin();
  await sleep(lastsMs);
  const [endedMs, endedWallMs] = [performance.now(), Date.now()];
  await end();
  await steady;
  await allOver(shots);
  const isBack = (): Shot | undefined =>
    shots.find((one) => one.sentMs > endedMs && one.instance === 'a' && isWhole(one));
  await until('a answers again', async () => {
    if (!isBack()) await shootFor(1, 1, () => shoot(entry.url, { tokens: 1 }), shots).then(allOver);
    return isBack() !== undefined;
  });
  const receipts = [...(await entry.receipts(sinceWallMs)), ...(door ? await door.receipts(sinceWallMs) : [])];
  const left = await scrape(rig.a.url);
  return {
    ...summary(shots, begunBefore, beganMs),
    ...attempts(receipts, beganWallMs, endedWallMs),
    backS: ((isBack() as Shot).sentMs - endedMs) / 1000,
    leftAtServer: left.running + left.waiting,
  };
}

function summary(
  shots: readonly Shot[],
  begunBefore: ReadonlySet<Shot>,
  beganMs: number,
): Omit<Outage, 'lastAttemptS' | 'endings' | 'backS' | 'leftAtServer'> {
  const perToken = shots
    .filter((one) => isWhole(one) && (one.endMs as number) < beganMs)
    .map((one) => tookMs(one) / one.tokens)
    .toSorted((x, y) => x - y);
  const msPerToken = perToken[perToken.length >> 1] as number;
  const affected = (one: Shot): boolean => (one.endMs as number) > beganMs;
  const waitedMs = (one: Shot): number =>
    (one.endMs as number) - Math.max(beganMs, one.sentMs) - one.tokens * msPerToken;
  const begun = shots.filter((one) => begunBefore.has(one) && one.instance === 'a' && !isWhole(one));
  const waited = shots.filter((one) => affected(one) && isWhole(one) && waitedMs(one) > NOTICEABLE_MS);
  const abortedByEngine = shots.filter((one) => one.body.includes('"finish_reason":"abort"'));
  const failed = shots.filter(
    (one) => !isWhole(one) && !(begun.includes(one) && endsWithError(one)) && !abortedByEngine.includes(one),
  );
  if (failed.length > 0) console.log(failures(failed));
  return {
    requests: shots.length,
    failed: failed.length,
    moved: waited.length,
    movedS: Math.max(0, ...waited.map(waitedMs)) / 1000,
    begun: begun.length - begun.filter((one) => abortedByEngine.includes(one)).length,
    begunWithError: begun.filter(endsWithError).length,
    begunS: Math.max(0, ...begun.map((one) => (one.endMs as number) - beganMs)) / 1000,
    abortedByEngine: abortedByEngine.length,
  };
}

function attempts(
  receipts: readonly Receipt[],
  beganWallMs: number,
  endedWallMs: number,
): Pick<Outage, 'lastAttemptS' | 'endings'> {
  const there = receipts.filter((one) => one.chosen === 'a' && one.atWallMs < endedWallMs);
  const during = there.filter((one) => one.atWallMs > beganWallMs);
  const counts = new Map<string, number>();
  for (const { ending } of there) counts.set(ending, (counts.get(ending) ?? 0) + 1);
  return {
    lastAttemptS: Math.max(0, ...during.map((one) => one.atWallMs - beganWallMs)) / 1000,
    endings: [...counts].map(([ending, count]) => `${count} ${ending}`).join(', '),
  };
}
