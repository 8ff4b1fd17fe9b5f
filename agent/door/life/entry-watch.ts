import type { Clock, Timer } from '../../../shared/env.ts';
import { LodestarError } from '../../../shared/errors.ts';
import type { OpenAttempts } from '../open-attempts.ts';

const TICK_MS = 1000;
/** A tick that comes later than this is our own loop's doing: the time beyond says nothing of an entry. */
const MAX_TICK_MS = 1250;
/** An entry asks once a second while it has attempts here. */
const GONE_AFTER_MS = 10_000;

/**
 * Ends what an entry has running at this agent's engines once nothing is heard of the entry any more: a link may be
 * half open, and its slots would be held for ever.
 */
export class EntryWatch {
  private readonly clock: Clock;
  private readonly open: OpenAttempts;
  private readonly quietMs = new Map<string, number>();
  private readonly timer: Timer;
  private tickMs: number;

  constructor(clock: Clock, open: OpenAttempts) {
    this.clock = clock;
    this.open = open;
    this.tickMs = clock.nowMs();
    this.timer = clock.every(TICK_MS, () => this.tick());
  }

  close(): void {
    this.timer.cancel();
  }

  /** The entry, in this boot of it, has sent a request or asked for its attempts. */
  heard(entry: string, epoch: number): void {
    this.quietMs.set(keyOf(entry, epoch), 0);
  }

  private tick(): void {
    const nowMs = this.clock.nowMs();
    const stepMs = Math.min(MAX_TICK_MS, nowMs - this.tickMs);
    this.tickMs = nowMs;
    const watched = this.open.select((one) => one.id.watched);
    const present = new Set(watched.map(({ id }) => keyOf(id.entry, id.epoch)));
    for (const [key, quietMs] of this.quietMs) {
      // Without attempts here an entry has no reason to ask.
      if (present.has(key)) this.quietMs.set(key, quietMs + stepMs);
      else this.quietMs.delete(key);
    }
    for (const one of watched) {
      if ((this.quietMs.get(keyOf(one.id.entry, one.id.epoch)) ?? 0) <= GONE_AFTER_MS) continue;
      one.end({
        failure: 'link',
        error: new LodestarError(
          'UPSTREAM_TIMEOUT',
          `nothing was heard of the entry ${one.id.entry} for ${GONE_AFTER_MS} ms`,
        ),
      });
    }
  }
}

function keyOf(entry: string, epoch: number): string {
  return `${entry} ${epoch}`;
}
