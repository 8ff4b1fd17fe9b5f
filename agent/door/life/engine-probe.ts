import type { Clock } from '../../../shared/env.ts';
import type { Upstream } from '../../wire/upstream.ts';

const PERIOD_MS = 1000;
const TIMEOUT_MS = 5000;
const MAX_ANSWER_BYTES = 1024 * 1024;

/**
 * Asks an engine in doubt for one token, at most once a second, so that no client's request has to find out whether it
 * computes again. What it answers with a 4xx (it may serve no completions at all) passes too: its next loss would be
 * noticed like the first.
 */
export class EngineProbe {
  private readonly clock: Clock;
  private readonly upstream: Upstream;
  private readonly headers: Record<string, string>;
  private readonly onAnswer: () => void;
  private askedMs = -Infinity;
  private busy = false;

  constructor(clock: Clock, upstream: Upstream, headers: Record<string, string>, onAnswer: () => void) {
    this.clock = clock;
    this.upstream = upstream;
    this.headers = headers;
    this.onAnswer = onAnswer;
  }

  /** Asks unless it is being asked, or was within the last second. */
  ask(model: string | undefined): void {
    const nowMs = this.clock.nowMs();
    if (this.busy || nowMs - this.askedMs < PERIOD_MS) return;
    this.askedMs = nowMs;
    this.busy = true;
    void this.send(model).finally(() => {
      this.busy = false;
    });
  }

  private async send(model: string | undefined): Promise<void> {
    const timeout = new AbortController();
    const timer = this.clock.after(TIMEOUT_MS, () => timeout.abort());
    const body = [Buffer.from(JSON.stringify({ model, prompt: 'a', max_tokens: 1 }))];
    const headers = { ...this.headers, 'content-type': 'application/json' };
    try {
      const { status } = await this.upstream.ask(
        { method: 'POST', path: '/v1/completions', headers, body },
        timeout.signal,
        MAX_ANSWER_BYTES,
      );
      if (status < 500) this.onAnswer();
    } catch {
      // No answer is an answer: the engine stays in doubt.
    } finally {
      timer.cancel();
    }
  }
}
