import type { ServerResponse } from 'node:http';
import type { Clock } from '../../../shared/env.ts';
import type { Engine } from '../engine.ts';
import type { EngineMetrics } from '../metrics.ts';

/** What the emulator calls itself; nothing may mistake it for a real vLLM. */
export const EMULATED_VERSION = '0.29.0+lodestar-emulated';

/** The faults in force; routes look here. */
export class Faults {
  /** Connections are accepted and nothing is answered, by any route but this one. */
  isServerHung = false;
  /** Streams are cut after this many chunks. */
  dropAfterChunks: number | undefined;
  /** Generation requests are answered with this status. */
  status: 500 | 503 | undefined;
  private readonly held = new Set<ServerResponse>();

  /** Keeps a request unanswered until its client gives up or the fault is cleared. */
  hold(response: ServerResponse): void {
    this.held.add(response);
    response.once('close', () => this.held.delete(response));
  }

  clear(): void {
    this.isServerHung = false;
    this.dropAfterChunks = undefined;
    this.status = undefined;
    for (const response of this.held) response.destroy();
  }
}

/** What the route groups share. */
export interface Emulator {
  readonly engine: Engine;
  readonly metrics: EngineMetrics;
  readonly clock: Clock;
  readonly faults: Faults;
  readonly model: string;
  readonly gpu: string;
  readonly maxModelLen: number;
  /** Physical blocks, the null block included. */
  readonly blockCount: number;
  readonly startedWallMs: number;
  /** HTTP generation requests in flight, queued ones included. */
  load: number;
  /** Ends the process (or, in tests, the server) with all its connections. */
  exit(): void;
}
