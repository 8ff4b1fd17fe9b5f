import type { Timer } from '../../shared/env.ts';
import { LodestarError } from '../../shared/errors.ts';
import type { AgentContext } from '../entry/context.ts';
import { LINK_DOWN } from '../entry/instances.ts';
import type { RunningAttempt } from '../entry/running-attempts.ts';
import { attemptsPath, decodeAttempts, type HeldAttempt, MAX_LIST_BYTES } from '../wire/attempt-list.ts';
import { Upstream } from '../wire/upstream.ts';

const PERIOD_MS = 1000;
const TIMEOUT_MS = 1000;
/** Bytes that the door has had this long before the entry are not on their way any more. */
const LAG_MS = 3000;
const NOT_FOUND = 404;
const NOT_HELD = 'the door does not hold the request';
const LAGGING = 'what the door has had from its engine does not arrive here';

/** What one door has answered. */
interface Door {
  readonly upstream: Upstream;
  /** answers missing in a row */
  missing: number;
  /** attempts that are amiss by the answer before, and the newest byte that they had then, clock ms */
  amiss: Map<RunningAttempt, number>;
}

/**
 * Once a second this entry asks every door where it has running attempts which of them are open there, on a connection
 * of its own. A link that is half open shows so, from either side, although no engine is at fault: attempts that the
 * door does not hold end, and after three missing answers all of them.
 */
export class LinkWatch {
  private readonly context: AgentContext;
  private readonly doors = new Map<string, Door>();
  private readonly timer: Timer;
  private readonly abort = new AbortController();

  constructor(context: AgentContext) {
    this.context = context;
    this.timer = context.env.clock.every(PERIOD_MS, () => this.tick());
  }

  close(): void {
    this.timer.cancel();
    this.abort.abort();
    for (const door of this.doors.values()) void door.upstream.close();
  }

  private tick(): void {
    const running = this.context.running.byDoor();
    for (const url of running.keys()) this.door(url);
    for (const [url, door] of this.doors) {
      // A door that has failed is asked until it answers, or is forgotten by the fleet.
      if (running.has(url) || (door.missing > 0 && this.isKnown(url))) void this.ask(url, door);
      else this.forget(url, door);
    }
  }

  private door(url: string): Door {
    let door = this.doors.get(url);
    if (!door) {
      door = {
        upstream: new Upstream(url, this.context.config.connectTimeoutMs, this.context.env.clock),
        missing: 0,
        amiss: new Map(),
      };
      this.doors.set(url, door);
    }
    return door;
  }

  private async ask(url: string, door: Door): Promise<void> {
    const { clock } = this.context.env;
    const askedMs = clock.nowMs();
    const timeout = new AbortController();
    // An answer that came while our own loop stood still is read before this is run.
    const timer = clock.after(TIMEOUT_MS, () => setImmediate(() => timeout.abort()));
    try {
      const { config, epoch, token } = this.context;
      const signal = AbortSignal.any([this.abort.signal, timeout.signal]);
      const { status, body } = await door.upstream.get(
        attemptsPath(config.id, epoch),
        { authorization: `Bearer ${token}` },
        signal,
        MAX_LIST_BYTES,
      );
      // An agent of an earlier version does not know the question, but it is there.
      const held = status === NOT_FOUND ? undefined : decodeAttempts(body);
      if (status !== NOT_FOUND && !held)
        throw new LodestarError('WIRE_MALFORMED', `${url} answered ${status} to the question for attempts`);
      this.answered(url, door, held, askedMs);
    } catch {
      if (!this.abort.signal.aborted) this.missed(url, door);
    } finally {
      timer.cancel();
    }
  }

  private answered(url: string, door: Door, held: readonly HeldAttempt[] | undefined, askedMs: number): void {
    if (door.missing >= LINK_DOWN) this.context.env.log.info({ door: url }, 'the link to the door works again');
    this.setMissing(url, door, 0);
    if (!held) return;
    const quietMs = new Map(held.map(([instance, seq, quiet]) => [`${instance} ${seq}`, quiet]));
    const amiss = new Map<RunningAttempt, number>();
    for (const one of this.context.running.byDoor().get(url) ?? []) {
      if (one.sentMs >= askedMs || one.paused) continue;
      const quiet = quietMs.get(`${one.view.id} ${one.seq}`);
      // Held, and no byte that the door has had from its engine is missing here.
      if (quiet !== undefined && (quiet < 0 || askedMs - quiet - one.lastByteMs <= LAG_MS)) continue;
      // One answer alone may have crossed with the end of the attempt: a second must say so, with no byte in between.
      if (door.amiss.get(one) === one.lastByteMs) this.end(one, quiet === undefined ? NOT_HELD : LAGGING);
      else amiss.set(one, one.lastByteMs);
    }
    door.amiss = amiss;
  }

  private missed(url: string, door: Door): void {
    this.setMissing(url, door, door.missing + 1);
    if (door.missing === LINK_DOWN)
      this.context.env.log.warn({ door: url }, `no answer from the door to ${LINK_DOWN} questions: its link is down`);
    if (door.missing < LINK_DOWN) return;
    for (const one of this.context.running.byDoor().get(url) ?? [])
      this.end(one, 'the door no longer answers this entry');
  }

  private setMissing(url: string, door: Door, missing: number): void {
    door.missing = missing;
    for (const view of this.context.instances.views.values()) if (view.doorUrl === url) view.linkMissing = missing;
  }

  private end(attempt: RunningAttempt, why: string): void {
    attempt.end({ failure: 'link', error: new LodestarError('UPSTREAM_TIMEOUT', why) });
  }

  private isKnown(url: string): boolean {
    for (const view of this.context.instances.views.values()) if (view.doorUrl === url) return true;
    return false;
  }

  private forget(url: string, door: Door): void {
    this.doors.delete(url);
    void door.upstream.close();
  }
}
