import type { Env } from '../../../shared/env.ts';

/** What can be wrong with a stream of KV events. */
export type ProblemKind = 'library' | 'endpoint' | 'frames' | 'payload' | 'type' | 'rank' | 'replay' | 'buffer' | 'own';

/** A problem in words, with the key or flag to change. */
export interface Problem {
  kind: ProblemKind;
  text: string;
}

const SAY_AGAIN_MS = 600_000;

/** Logs each kind of problem once, and again only after ten minutes: a bad stream has one in every message. */
export class ProblemLog {
  private readonly env: Pick<Env, 'clock' | 'log'>;
  private readonly instance: string;
  private readonly saidMs = new Map<ProblemKind, number>();

  constructor(env: Pick<Env, 'clock' | 'log'>, instance: string) {
    this.env = env;
    this.instance = instance;
  }

  say({ kind, text }: Problem): void {
    const nowMs = this.env.clock.nowMs();
    if (nowMs - (this.saidMs.get(kind) ?? -Infinity) < SAY_AGAIN_MS) return;
    this.saidMs.set(kind, nowMs);
    this.env.log.warn({ instance: this.instance, problem: kind }, `KV events: ${text}`);
  }
}
