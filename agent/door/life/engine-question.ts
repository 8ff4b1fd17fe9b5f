import type { Clock } from '../../../shared/env.ts';
import type { Upstream, UpstreamRequest } from '../../wire/upstream.ts';

const PERIOD_MS = 1000;
const TIMEOUT_MS = 5000;
const MAX_ANSWER_BYTES = 1024 * 1024;

/**
 * Something that a door asks its engine by itself: at most once a second, and not while an answer is outstanding, for
 * which it waits 5 s at the most.
 */
export class EngineQuestion {
  private readonly clock: Clock;
  private readonly upstream: Upstream;
  private readonly onAnswer: (status: number, body: Buffer) => void;
  private askedMs = -Infinity;
  private busy = false;

  /** `onAnswer` may throw: then there was no answer. */
  constructor(clock: Clock, upstream: Upstream, onAnswer: (status: number, body: Buffer) => void) {
    this.clock = clock;
    this.upstream = upstream;
    this.onAnswer = onAnswer;
  }

  /** Asks unless it is being asked, or was within the last second. `make` makes the request. */
  ask(make: () => UpstreamRequest): void {
    const nowMs = this.clock.nowMs();
    if (this.busy || nowMs - this.askedMs < PERIOD_MS) return;
    this.askedMs = nowMs;
    this.busy = true;
    void this.send(make()).finally(() => {
      this.busy = false;
    });
  }

  private async send(request: UpstreamRequest): Promise<void> {
    const timeout = new AbortController();
    const timer = this.clock.after(TIMEOUT_MS, () => timeout.abort());
    try {
      const { status, body } = await this.upstream.ask(request, timeout.signal, MAX_ANSWER_BYTES);
      this.onAnswer(status, body);
    } catch {
      // No answer is an answer: nothing has changed.
    } finally {
      timer.cancel();
    }
  }
}
