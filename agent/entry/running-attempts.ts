import type { AttemptFailure } from '../wire/ending.ts';
import type { InstanceView } from './instances.ts';

/** One attempt of this entry that is under way. Times are of the injected clock, ms. */
export interface RunningAttempt {
  readonly view: InstanceView;
  /** this entry's number of the request at the instance */
  readonly seq: number;
  readonly sentMs: number;
  /** of the newest byte of its answer; `sentMs` before any */
  readonly lastByteMs: number;
  /** the client does not read on, so neither does this entry */
  readonly paused: boolean;
  /** Ends it: what it waits for will not come. */
  end(failure: AttemptFailure): void;
}

/** All attempts of one entry that are under way. */
export class RunningAttempts {
  private readonly running = new Set<RunningAttempt>();

  add(attempt: RunningAttempt): void {
    this.running.add(attempt);
  }

  remove(attempt: RunningAttempt): void {
    this.running.delete(attempt);
  }

  /** Those at the doors of other agents, by the door's URL. */
  byDoor(): Map<string, RunningAttempt[]> {
    const doors = new Map<string, RunningAttempt[]>();
    for (const attempt of this.running) {
      if (attempt.view.local) continue;
      const there = doors.get(attempt.view.doorUrl);
      if (there) there.push(attempt);
      else doors.set(attempt.view.doorUrl, [attempt]);
    }
    return doors;
  }
}
