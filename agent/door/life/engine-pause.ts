import { z } from 'zod';
import type { Clock } from '../../../shared/env.ts';
import type { Upstream } from '../../wire/upstream.ts';
import { EngineQuestion } from './engine-question.ts';

/** A vLLM that is not in development mode cannot be paused over HTTP, and does not know the question. */
const UNKNOWN_MS = 60_000;

const answerSchema = z.object({ is_paused: z.boolean() });

/**
 * Asks a vLLM whether it is paused (vllm/entrypoints/serve/dev/rlhf/api_router.py). Its gauges do not tell: they stand
 * where they stood, and requests that have come since are in them only once another has left.
 */
export class EnginePause {
  private readonly clock: Clock;
  private readonly headers: Record<string, string>;
  private readonly question: EngineQuestion;
  private isPaused = false;
  private againMs = -Infinity;

  constructor(clock: Clock, upstream: Upstream, headers: Record<string, string>) {
    this.clock = clock;
    this.headers = headers;
    this.question = new EngineQuestion(clock, upstream, (status, body) => this.note(status, body));
  }

  /** By its newest answer. */
  get paused(): boolean {
    return this.isPaused;
  }

  /** Asks unless it is being asked, was within the last second, or does not know the question. */
  ask(): void {
    if (this.clock.nowMs() < this.againMs) return;
    this.question.ask(() => ({ method: 'GET', path: '/is_paused', headers: this.headers, body: [] }));
  }

  private note(status: number, body: Buffer): void {
    this.isPaused = status === 200 && answerSchema.parse(JSON.parse(body.toString('utf8'))).is_paused;
    if (status !== 200) this.againMs = this.clock.nowMs() + UNKNOWN_MS;
  }
}
