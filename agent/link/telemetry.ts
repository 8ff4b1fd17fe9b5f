import type { Clock, Timer } from '../../shared/env.ts';
import type { InstanceReport } from '../../shared/instance.ts';
import { packHashes, packTokens } from '../../shared/codec.ts';
import { type BlocksMessage, MAX_HASHES_PER_FRAME } from '../../shared/protocol.ts';
import { reportBytes } from '../../shared/report.ts';
import type { DoorInstance } from '../door/door-instance.ts';
import type { Instances } from '../entry/instances.ts';

/** Reports are sent at least this often, changed or not. */
const MAX_SILENCE_MS = 1000;
/**
 * Reports with long lists of names come less often, so that an instance's take no more than this of a link, bytes per
 * ms.
 */
const REPORT_BYTES_PER_MS = 2048;

/** Where telemetry goes: the link to the brain. */
export interface TelemetrySink {
  sendReports(reports: InstanceReport[]): void;
  sendBlocks(message: BlocksMessage): void;
}

/**
 * Turns what the doors of this agent know into messages: reports on change, at most every `minMs`; block deltas as they
 * come.
 */
export class Telemetry {
  private readonly doors: readonly DoorInstance[];
  private readonly instances: Instances;
  private readonly clock: Clock;
  private readonly sink: TelemetrySink;
  private readonly isDraining: () => boolean;
  private readonly last = new Map<string, { key: string; atMs: number }>();
  private readonly minMs: number;
  private readonly timer: Timer;
  private soon: Timer | undefined;
  private sentMs = -Infinity;

  constructor(
    doors: readonly DoorInstance[],
    instances: Instances,
    clock: Clock,
    minMs: number,
    sink: TelemetrySink,
    isDraining: () => boolean,
  ) {
    this.doors = doors;
    this.instances = instances;
    this.clock = clock;
    this.sink = sink;
    this.isDraining = isDraining;
    this.minMs = minMs;
    this.timer = clock.every(minMs, () => this.tick());
    for (const door of doors) door.ledger.onChange = () => this.poke();
  }

  close(): void {
    this.timer.cancel();
    this.soon?.cancel();
  }

  /** After a reconnect: everything is sent again. */
  resend(): void {
    this.last.clear();
    for (const door of this.doors) door.cache.requestReset();
  }

  /** The brain lost track of an instance's blocks. */
  resendBlocks(instance: string): void {
    this.doors.find((door) => door.id === instance)?.cache.requestReset();
  }

  /** Something changed: it is sent at once, unless something was sent within the last `minMs`. */
  private poke(): void {
    if (this.clock.nowMs() - this.sentMs < this.minMs) return;
    this.soon ??= this.clock.after(0, () => this.tick());
  }

  private tick(): void {
    const nowMs = this.clock.nowMs();
    this.soon?.cancel();
    this.soon = undefined;
    const changed: InstanceReport[] = [];
    for (const door of this.doors) {
      door.refresh();
      const report = door.report(this.isDraining());
      const key = changeKey(report);
      const last = this.last.get(door.id);
      if (last && nowMs - last.atMs < Math.min(MAX_SILENCE_MS, reportBytes(report) / REPORT_BYTES_PER_MS)) continue;
      if (!last || last.key !== key || nowMs - last.atMs >= MAX_SILENCE_MS) {
        this.last.set(door.id, { key, atMs: nowMs });
        changed.push(report);
      }
    }
    if (changed.length > 0) {
      this.sentMs = nowMs;
      this.sink.sendReports(changed);
    }
    for (const door of this.doors) if (door.cache.hasDelta) this.sendDelta(door);
  }

  private sendDelta(door: DoorInstance): void {
    const delta = door.cache.drainDelta();
    this.instances.applyLocalDelta(door.id, delta);
    let reset = delta.reset;
    for (let at = 0; at === 0 || at < delta.add.length || at < delta.remove.length; at += MAX_HASHES_PER_FRAME) {
      this.sink.sendBlocks({
        t: 'blocks',
        instance: door.id,
        incarnation: door.incarnation,
        seq: door.blockSeq++,
        reset,
        add: packHashes(delta.add.slice(at, at + MAX_HASHES_PER_FRAME)),
        remove: packHashes(delta.remove.slice(at, at + MAX_HASHES_PER_FRAME)),
        tokens: packTokens(delta.tokens.slice(at, at + MAX_HASHES_PER_FRAME)),
      });
      reset = false;
    }
  }
}

/** Changes in what an entry decides by; gauges and ages ride along with the next change or the next second. */
function changeKey(report: InstanceReport): string {
  const { ledger } = report;
  return `${report.incarnation} ${report.health} ${report.draining} ${report.models.length} ${ledger.inFlight} ${ledger.waiting} ${ledger.prefilling} ${ledger.decoding} ${Math.round(ledger.pendingTokens / 256)} ${Math.round(ledger.usedTokens / 256)} ${report.limits.kvTokens}`;
}
