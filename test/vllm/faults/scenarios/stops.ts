import { request } from 'undici';
import { atMost, exactly, type Figure, told } from '../figure.ts';
import { type Outage, outage } from '../outage.ts';
import type { FaultRig } from '../rig.ts';

const GROUP_MS = 10_000;
const CORE_MS = 15_000;
const PAUSE_MS = 30_000;
const STUCK_AFTER_MS = 5000;
const BACK_S = 10;

/** All processes of one server stand still under load. */
export async function stopGroup(rig: FaultRig): Promise<Figure[]> {
  const topology = await rig.pair();
  try {
    const seen = await outage(rig, topology, {
      begin: () => rig.a.freeze(),
      end: () => rig.a.thaw(),
      lastsMs: GROUP_MS,
    });
    return [atMost('the last attempt sent there', seen.lastAttemptS, 1.5, 's'), ...figuresOf('', seen, 5)];
  } finally {
    rig.a.thaw();
    await topology.stop();
  }
}

/** The engine core of one server stands still under load, while its API server answers health checks. */
export async function stopCore(rig: FaultRig): Promise<Figure[]> {
  const topology = await rig.pair({ stuckAfterMs: STUCK_AFTER_MS });
  try {
    const seen = await outage(rig, topology, {
      begin: () => rig.a.freezeCore(),
      end: () => rig.a.thawCore(),
      lastsMs: CORE_MS,
    });
    return [
      told('the last attempt sent there', `${seen.lastAttemptS.toFixed(2)} s`),
      ...figuresOf('', seen, STUCK_AFTER_MS / 1000 + 2),
    ];
  } finally {
    rig.a.thaw();
    await topology.stop();
  }
}

/**
 * One server is paused as its development mode allows: so that what runs ends (the default), stays as it is, or is
 * finished first.
 */
export async function pause(rig: FaultRig): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const mode of ['abort', 'keep', 'wait']) {
    const topology = await rig.pair();
    try {
      const seen = await outage(rig, topology, {
        begin: () => void post(`${rig.a.url}/pause?mode=${mode}`),
        end: () => post(`${rig.a.url}/resume`),
        lastsMs: PAUSE_MS,
      });
      figures.push(
        ...figuresOf(`mode ${mode}: `, seen, 15),
        told(`mode ${mode}: finished early by vLLM itself`, String(seen.abortedByEngine)),
      );
    } finally {
      await post(`${rig.a.url}/resume`);
      await topology.stop();
    }
    await rig.rest();
  }
  return figures;
}

function figuresOf(prefix: string, seen: Outage, withinS: number): Figure[] {
  return [
    exactly(`${prefix}requests that failed without having begun, of ${seen.requests}`, seen.failed, 0),
    atMost(
      `${prefix}longest wait of ${seen.moved} that had no byte, beyond their computing`,
      seen.movedS,
      withinS,
      's',
    ),
    exactly(`${prefix}begun streams that ended with an error event, of ${seen.begun}`, seen.begunWithError, seen.begun),
    atMost(`${prefix}the last of these`, seen.begunS, withinS, 's'),
    atMost(`${prefix}until it served again`, seen.backS, BACK_S, 's'),
    exactly(`${prefix}requests left there`, seen.leftAtServer, 0),
    told(`${prefix}attempts there`, seen.endings),
  ];
}

async function post(url: string): Promise<void> {
  const { statusCode, body } = await request(url, { method: 'POST' });
  await body.dump();
  if (statusCode !== 200) throw new Error(`${url} answered ${statusCode}`);
}
