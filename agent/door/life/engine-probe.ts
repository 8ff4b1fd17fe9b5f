import type { Clock } from '../../../shared/env.ts';
import type { Upstream } from '../../wire/upstream.ts';
import { EngineQuestion } from './engine-question.ts';

/**
 * Asks an engine in doubt for one token, at most once a second, so that no client's request has to find out whether it
 * computes again. What it answers with a 4xx (it may serve no completions at all) passes too: its next loss would be
 * noticed like the first.
 */
export class EngineProbe {
  private readonly headers: Record<string, string>;
  private readonly question: EngineQuestion;

  constructor(clock: Clock, upstream: Upstream, headers: Record<string, string>, onAnswer: () => void) {
    this.headers = headers;
    this.question = new EngineQuestion(clock, upstream, (status) => {
      if (status < 500) onAnswer();
    });
  }

  /** Asks unless it is being asked, or was within the last second. */
  ask(model: string | undefined): void {
    this.question.ask(() => ({
      method: 'POST',
      path: '/v1/completions',
      headers: { ...this.headers, 'content-type': 'application/json' },
      body: [Buffer.from(JSON.stringify({ model, prompt: 'a', max_tokens: 1 }))],
    }));
  }
}
