import type { Log } from '../../shared/env.ts';

/** Readings of the engine's gauges in a row, one a second by default, that must agree before an operator is told. */
const READINGS = 5;

/**
 * Watches for requests that reach an engine past its door: they show as gauges above the door's own ledger. The ledger,
 * and so every decision, knows nothing of their prompts; vLLM is meant to listen on loopback only.
 */
export class OutsideTraffic {
  /** requests at the engine that the door did not forward, by the newest reading */
  requests = 0;
  private readonly instance: string;
  private readonly log: Log;
  private mostInFlight = 0;
  private readAtMs = -Infinity;
  private inRow = 0;
  private said = false;

  constructor(instance: string, log: Log) {
    this.instance = instance;
    this.log = log;
  }

  /** `inFlight`: by the ledger now. `atEngine`: running and waiting by the gauges that were read at `readAtMs`. */
  note(inFlight: number, atEngine: number, readAtMs: number): void {
    // A gauge is up to a period old: it is held against the most that the ledger held since the reading before.
    this.mostInFlight = Math.max(this.mostInFlight, inFlight);
    if (readAtMs === this.readAtMs) return;
    this.readAtMs = readAtMs;
    this.requests = Math.max(0, atEngine - this.mostInFlight);
    this.mostInFlight = inFlight;
    this.inRow = this.requests > 0 ? this.inRow + 1 : 0;
    if (this.inRow === READINGS) {
      this.said = true;
      this.log.warn(
        { instance: this.instance, requests: this.requests },
        'requests reach the engine past its agent: let it listen on loopback only',
      );
    } else if (this.inRow === 0 && this.said) {
      this.said = false;
      this.log.info({ instance: this.instance }, 'no more requests reach the engine past its agent');
    }
  }
}
