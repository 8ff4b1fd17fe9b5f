import type { Clock } from '../../shared/env.ts';

/** What is known of one engine's life: when anything came from it, and when anything in it moved. */
export class EngineWatch {
  private heardMs: number;
  private movedMs: number;

  constructor(clock: Clock) {
    this.heardMs = clock.nowMs();
    this.movedMs = this.heardMs;
  }

  /** A byte came from the engine: of an answer, or of a check. */
  heard(nowMs: number): void {
    this.heardMs = nowMs;
  }

  /** A token came, or one of its counters or gauges changed. */
  moved(nowMs: number): void {
    this.movedMs = nowMs;
  }

  /** ms since anything came, and since anything moved. */
  quietMs(nowMs: number): { heard: number; moved: number } {
    return { heard: nowMs - this.heardMs, moved: nowMs - this.movedMs };
  }
}
