import type { Decision } from '../../agent/entry/decide.ts';
import type { SimClock } from './clock.ts';
import type { SimDoor } from './door.ts';
import type { SimEntry } from './entry.ts';
import { lookaheadTtftMs } from './lookahead.ts';
import type { SimRequest } from './plan.ts';

/**
 * Knows each engine's state, its true step law and every output length: plays each candidate forward until the request
 * has its first token, as if nothing came after it. A yardstick for regret, not a baseline: no router can know these.
 */
export class Oracle {
  private readonly clock: SimClock;
  private readonly doors: readonly SimDoor[];
  private readonly frontEndMs: number;

  constructor(clock: SimClock, doors: readonly SimDoor[], frontEndMs: number) {
    this.clock = clock;
    this.doors = doors;
    this.frontEndMs = frontEndMs;
  }

  /** How much later, in ms, the first token comes from `chosen` than from the best instance. */
  regretMs(request: SimRequest, chosen: string): number {
    let best = Infinity;
    let own = NaN;
    for (const door of this.doors) {
      if (door.engine.isDead || !door.joined) continue;
      const ttftMs = lookaheadTtftMs(door, request, this.clock.nowMs(), this.frontEndMs);
      best = Math.min(best, ttftMs);
      if (door.spec.id === chosen) own = ttftMs;
    }
    return own - best;
  }

  /** Sends the request to the best instance instead; its regret is 0. */
  overrule(entry: SimEntry, request: SimRequest, decision: Decision): number {
    let best = Infinity;
    for (const door of this.doors) {
      const view = entry.context.instances.views.get(door.spec.id);
      if (door.engine.isDead || !door.joined || !view) continue;
      const ttftMs = lookaheadTtftMs(door, request, this.clock.nowMs(), this.frontEndMs);
      if (ttftMs >= best) continue;
      best = ttftMs;
      decision.view = view;
    }
    return 0;
  }
}
