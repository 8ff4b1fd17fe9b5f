import { type Batch, BatchMemory, PendingBatches } from './batches.ts';
import { noCounts } from './history-counts.ts';
import type { KvEvent, KvEventSink } from './kv-event.ts';

/** What a history needs of its surroundings. */
export interface HistoryHost {
  sink: KvEventSink;
  /** Events of a payload, or undefined if they cannot be used; the host then knows why. */
  read(payload: Uint8Array): readonly KvEvent[] | undefined;
  /** A live batch could not be used: what was heard so far is void until `start`. */
  onUnreadable(): void;
  /** Whether the replay socket may be asked now. */
  canReplay(): boolean;
  /** Asks for all batches from `from` on. The answer comes by `replayed`, then `replayEnded` or `replayAbsent`. */
  askReplay(from: number): void;
  /** The replay socket holds less than was already heard: its buffer is empty. */
  onBlindReplay(): void;
  /** Calls `work` in a later turn of the event loop. */
  defer(work: () => void): void;
}

interface Replay {
  /**
   * `start`: a new history; `continue`: what comes after the last batch, which is asked for too, to see that it is the
   * same.
   */
  purpose: 'start' | 'continue';
  isFirst: boolean;
  applied: number;
  /** A batch within the answer is missing: a ROUTER drops what its peer does not take fast enough. */
  isBroken: boolean;
  /** The engine is another: the rest of the answer is not wanted. */
  isOther: boolean;
}

/** Answers in a row that break off without a single new batch before the rest counts as lost. */
const MAX_FRUITLESS = 3;
/** Events applied before the event loop gets its turn. */
export const EVENTS_PER_TURN = 2000;

/**
 * Makes one history of live and replayed batches: each applied once, in the order of the engine's sequence, or the sink
 * is told that a new history begins. Batches are known by sequence number and checksum, since an engine that has
 * restarted numbers from 0 again and may be past the old number when it is heard first. Sockets are the host's.
 */
export class KvHistory {
  readonly counts = noCounts();
  /** The sink has a history now. */
  hasBegun = false;
  /** It begins with the engine's first event. */
  isComplete = false;
  /** Number of the batch applied last; −1: the engine's first is still to come; undefined: any may be next. */
  lastSeq: number | undefined;
  private readonly host: HistoryHost;
  private readonly memory = new BatchMemory();
  private readonly pending = new PendingBatches();
  private replay: Replay | undefined;
  private isDraining = false;
  private isStopped = true;
  private isConnected = false;
  /** The connection was lost since the last proof that the engine is the same. */
  private isSuspect = false;
  private isBlind = false;
  /** A batch within a replay could not be used. */
  private hasHole = false;
  /** Older batches may be had once the replay socket answers. */
  private wantsAll = false;
  private fruitless = 0;
  private isQuiet = false;
  /** Number of the live batch that came last, whatever became of it. */
  private liveSeq = -1;

  constructor(host: HistoryHost) {
    this.host = host;
  }

  /** Begins anew: from the first batch that the replay socket has, or, without one, from the next that comes. */
  start(): void {
    this.stop();
    this.isStopped = false;
    this.isConnected = true;
    this.isBlind = false;
    if (this.host.canReplay()) this.ask('start');
  }

  get isRunning(): boolean {
    return !this.isStopped;
  }

  /** Hears nothing more until `start`. */
  stop(): void {
    this.isStopped = true;
    this.hasBegun = false;
    this.isComplete = false;
    this.lastSeq = undefined;
    this.replay = undefined;
    this.isSuspect = false;
    this.hasHole = false;
    this.wantsAll = false;
    this.fruitless = 0;
    this.liveSeq = -1;
    this.isDraining = false;
    this.pending.clear();
  }

  /** A batch from the live stream. */
  live(batch: Batch): void {
    if (this.isStopped || !this.isConnected) return;
    this.isQuiet = false;
    batch.isBack = batch.seq <= this.liveSeq;
    this.liveSeq = batch.seq;
    const mustWait = this.replay !== undefined || this.isDraining || !this.place(batch);
    if (mustWait && !this.pending.add(batch)) this.counts.dropped++;
  }

  /** The connection to the publisher is gone: batches may be missed, and the engine may be another when it is back. */
  disconnected(): void {
    this.isConnected = false;
    this.isSuspect = true;
    // They may be of an engine that is gone; if not, the replay socket has them.
    this.isDraining = false;
    this.pending.clear();
  }

  /** The engine may be another from here on. */
  suspect(): void {
    this.isSuspect = true;
  }

  /** The connection is there again. */
  reconnected(): void {
    this.isConnected = true;
    if (this.isStopped || this.replay) return;
    if (this.mayAsk()) this.ask(this.lastSeq === undefined ? 'start' : 'continue');
    else if (this.hasBegun) this.voidAll();
  }

  /**
   * Called each period: a tail that was lost stays invisible until the next batch, so a quiet stream is compared with
   * the replay socket's.
   */
  poll(): void {
    if (this.isStopped || this.replay || this.isDraining || !this.mayAsk()) return;
    const isQuiet = this.isQuiet;
    this.isQuiet = true;
    if (this.wantsAll || this.lastSeq === undefined) this.ask('start');
    else if (isQuiet || this.isSuspect) this.ask('continue');
  }

  /** A batch of the answer to the last question. */
  replayed(batch: Batch): void {
    const { replay } = this;
    if (!replay || replay.isOther || replay.isBroken) return;
    if (replay.isFirst) {
      this.firstReplayed(replay, batch);
      return;
    }
    const next = (this.lastSeq ?? -1) + 1;
    if (batch.seq === next) this.applyReplayed(replay, batch);
    else if (batch.seq > next) replay.isBroken = true;
  }

  /** The answer is over. `isCut`: without its end marker, so more may be to come. */
  replayEnded(isCut = false): void {
    const { replay } = this;
    if (!replay) return;
    this.replay = undefined;
    if (replay.isOther) {
      this.lastSeq = undefined;
      this.ask('start');
    } else if (replay.isFirst) {
      if (!this.endedEmpty(replay)) this.drain();
    } else if ((replay.isBroken || isCut) && this.goesOn(replay)) {
      this.ask('continue');
    } else this.finishReplay();
  }

  /** The replay socket does not answer: as if there were none, for now. */
  replayAbsent(): void {
    const { replay } = this;
    if (!replay) return;
    this.replay = undefined;
    // While the connection is gone nothing is proven either way; what to do is decided when it is back.
    if (this.isSuspect && this.isConnected && this.hasBegun) this.voidAll();
    this.finishReplay();
  }

  private mayAsk(): boolean {
    return !this.isBlind && this.host.canReplay();
  }

  private ask(purpose: Replay['purpose']): void {
    this.counts.replays++;
    this.replay = { purpose, isFirst: true, applied: 0, isBroken: false, isOther: false };
    this.host.askReplay(purpose === 'start' ? 0 : Math.max(0, this.lastSeq ?? 0));
  }

  private firstReplayed(replay: Replay, batch: Batch): void {
    const last = this.lastSeq;
    if (replay.purpose === 'continue' && last !== undefined && batch.seq < last) return;
    replay.isFirst = false;
    if (replay.purpose === 'start' || last === undefined) {
      // What has been heard since reaches back as far already.
      if (last !== undefined && this.memory.has(batch)) {
        this.isSuspect = false;
        this.wantsAll = false;
        return;
      }
      this.beginReplayed(batch.seq === 0);
    } else if (batch.seq === last && last >= 0) {
      if (this.memory.has(batch)) this.isSuspect = false;
      else this.replaced(replay);
      return;
    } else if (batch.seq !== last + 1 || this.isSuspect) {
      if (last < 0 && batch.seq === 0) this.isSuspect = false;
      else {
        this.counts.lost += batch.seq - last - 1;
        this.beginReplayed(false);
      }
    }
    this.applyReplayed(replay, batch);
  }

  private replaced(replay: Replay): void {
    this.counts.restarts++;
    replay.isOther = true;
    this.begin(false);
  }

  /** The engine has no batch from the one asked for on. True if the replay socket was asked again. */
  private endedEmpty(replay: Replay): boolean {
    const waiting = this.pending.first;
    const isNothingHeard = (this.lastSeq ?? -1) < 0;
    if (waiting ? waiting.seq > 0 : !isNothingHeard && !this.isSuspect) {
      // Batches have been published, and the buffer shows none.
      this.isBlind = true;
      this.host.onBlindReplay();
    } else if (isNothingHeard) {
      if (replay.purpose === 'start' || this.isSuspect) this.begin(true);
      this.lastSeq = -1;
      this.isSuspect = false;
    } else {
      this.counts.restarts++;
      this.begin(false);
      this.lastSeq = undefined;
      this.ask('start');
      return true;
    }
    return false;
  }

  private goesOn(replay: Replay): boolean {
    this.fruitless = replay.applied > 0 ? 0 : this.fruitless + 1;
    if (this.fruitless < MAX_FRUITLESS && this.host.canReplay()) return true;
    this.fruitless = 0;
    this.voidAll();
    return false;
  }

  private finishReplay(): void {
    if (this.hasHole) {
      this.host.onUnreadable();
      return;
    }
    this.drain();
  }

  private applyReplayed(replay: Replay, batch: Batch): void {
    replay.applied++;
    const events = this.take(batch);
    if (!events) {
      this.hasHole = true;
      return;
    }
    if (this.hasHole) {
      this.beginReplayed(false);
      this.lastSeq = batch.seq;
      this.memory.add(batch);
    }
    this.hasHole = false;
    this.host.sink.apply(events);
  }

  /** Applies a live batch, or drops it as known. False: it must wait for an answer of the replay socket. */
  private place(batch: Batch): boolean {
    const last = this.lastSeq;
    if (!this.hasBegun || last === undefined) {
      if (!this.hasBegun || batch.seq === 0) this.begin(batch.seq === 0);
    } else if (batch.seq <= last) {
      if (this.isOld(batch)) {
        this.counts.stale++;
        return true;
      }
      this.counts.restarts++;
      this.isBlind = false;
      this.begin(batch.seq === 0);
      if (batch.seq > 0 && this.host.canReplay()) {
        batch.asked = true;
        this.ask('start');
        return false;
      }
    } else if (batch.seq > last + 1) {
      return this.placeAfterGap(batch, last);
    }
    this.applyLive(batch);
    return true;
  }

  /** Whether a live batch is of this engine and was overtaken by the replay of it or of what came after it. */
  private isOld(batch: Batch): boolean {
    if (this.memory.has(batch)) return true;
    return batch.seq < this.memory.first && (batch.asked === true || (!batch.isBack && !this.isSuspect));
  }

  private placeAfterGap(batch: Batch, last: number): boolean {
    if (!batch.asked) this.counts.gaps++;
    if (this.mayAsk()) {
      if (batch.asked) {
        // All that the engine has published does not lead up to it: it is of one that is gone.
        this.counts.stale++;
        return true;
      }
      batch.asked = true;
      this.ask('continue');
      return false;
    }
    this.counts.lost += batch.seq - last - 1;
    this.begin(false);
    this.applyLive(batch);
    return true;
  }

  private applyLive(batch: Batch): void {
    const events = this.take(batch);
    if (events) this.host.sink.apply(events);
    else this.host.onUnreadable();
  }

  private take(batch: Batch): readonly KvEvent[] | undefined {
    this.lastSeq = batch.seq;
    this.memory.add(batch);
    const events = this.host.read(batch.payload);
    this.counts.batches++;
    this.counts.events += events?.length ?? 0;
    return events;
  }

  /** What was heard is void, and any batch may be next. */
  private voidAll(): void {
    this.begin(false);
    this.lastSeq = undefined;
    this.isSuspect = false;
  }

  /** A new history, whose first batch is the next one applied. */
  private begin(complete: boolean): void {
    this.hasBegun = true;
    this.isComplete = complete;
    this.isSuspect = false;
    this.lastSeq = complete ? -1 : undefined;
    this.wantsAll = !complete;
    this.memory.clear();
    this.host.sink.begin(complete);
  }

  /** The same with the oldest batch that there is. */
  private beginReplayed(complete: boolean): void {
    this.begin(complete);
    this.wantsAll = false;
  }

  /** Places the batches that came while an answer was awaited, in turns. */
  private drain(): void {
    const endEvents = this.counts.events + EVENTS_PER_TURN;
    this.isDraining = false;
    while (!this.replay && this.counts.events < endEvents) {
      const batch = this.pending.first;
      if (!batch || !this.place(batch)) break;
      // Stopped by what the batch held: nothing is pending any more.
      if (this.isStopped) return;
      this.pending.shift();
    }
    if (this.replay || !this.pending.first) return;
    this.isDraining = true;
    this.host.defer(() => {
      if (this.isDraining) this.drain();
    });
  }
}
