import type { KvEvent } from './kv-events.ts';
import { KvManager } from './kv-manager.ts';
import type { EngineRequest } from './request.ts';
import { Step } from './step.ts';
import { WaitingQueue, type SchedulingPolicy } from './waiting-queue.ts';

export interface SchedulerOptions {
  /** Physical KV blocks, the null block included. */
  blockCount: number;
  blockSize: number;
  maxNumSeqs: number;
  maxBatchedTokens: number;
  maxModelLen: number;
  policy?: SchedulingPolicy;
  /** Schedule a step before the output of the one before it is known (vLLM's async scheduling). */
  asyncScheduling?: boolean;
  recordEvents?: boolean;
  /** The model: gives the next token of a request. */
  sample: (request: EngineRequest) => number;
}

/** Prefix cache counters in tokens, counted at admission; re-admissions after a preemption apart, as in vLLM. */
export interface PrefixStats {
  queries: number;
  hits: number;
  preemptedQueries: number;
  preemptedHits: number;
}

/**
 * vLLM's V1 scheduler (core/sched/scheduler.py): no phases, each request catches up with its tokens; running requests
 * first, in order, then waiting ones until the head of the queue does not fit. `schedule` decides a step, `update`
 * applies its sampled tokens.
 */
export class Scheduler {
  readonly kv: KvManager;
  readonly running: EngineRequest[] = [];
  readonly waiting: WaitingQueue;
  readonly prefix: PrefixStats = { queries: 0, hits: 0, preemptedQueries: 0, preemptedHits: 0 };
  preemptionCount = 0;
  private readonly options: SchedulerOptions;
  private readonly isAsync: boolean;
  private arrivals = 0;

  constructor(options: SchedulerOptions) {
    this.options = options;
    this.isAsync = options.asyncScheduling ?? false;
    this.kv = new KvManager(options.blockCount, options.blockSize, options.recordEvents ?? false);
    this.waiting = new WaitingQueue(options.policy ?? 'fcfs');
  }

  get hasUnfinished(): boolean {
    return this.running.length > 0 || this.waiting.size > 0;
  }

  add(request: EngineRequest): void {
    request.arrival = this.arrivals++;
    this.waiting.push(request);
  }

  /** Ends a request at once, wherever it is; its blocks are free (and stay cached). */
  abort(request: EngineRequest): void {
    if (request.status === 'finished') return;
    if (request.status === 'running') this.running.splice(this.running.indexOf(request), 1);
    else this.waiting.remove(request);
    this.finish(request, 'abort');
  }

  /** Forgets the prefix cache; false while any request holds blocks. */
  resetPrefixCache(): boolean {
    return this.kv.pool.reset();
  }

  takeEvents(): KvEvent[] {
    return this.kv.pool.takeEvents();
  }

  /** Decides the next step, into `step`. */
  schedule(step: Step): void {
    step.clear();
    const budget = this.scheduleRunning(step, this.options.maxBatchedTokens);
    if (step.preempted.length === 0) this.scheduleWaiting(step, budget);
    this.advance(step);
  }

  /**
   * Applies the end of a step: appends sampled tokens, ends requests that reached their limit and frees their blocks.
   */
  update(step: Step): void {
    const { sample, maxModelLen } = this.options;
    let anyFinished = false;
    for (let i = 0; i < step.count; i++) {
      const request = step.requests[i]!;
      step.sampled[i] = -1;
      if (step.yields[i] === 0 || request.status === 'finished') continue;
      const token = sample(request);
      step.sampled[i] = token;
      request.appendOutput(token);
      // A request preempted since keeps the token, but its counters start anew.
      if (this.isAsync && request.preemptions === step.epochs[i]) {
        request.placeholders--;
        this.kv.cache(request, request.computed - request.placeholders);
      }
      if (request.outputCount < request.maxOutput && request.tokenCount < maxModelLen) continue;
      if (request.status !== 'running') this.waiting.remove(request);
      this.finish(request, request.outputCount >= request.maxOutput ? request.endReason : 'length');
      anyFinished = true;
    }
    if (anyFinished) this.dropFinished();
  }

  private scheduleRunning(step: Step, initialBudget: number): number {
    const { running, kv } = this;
    let budget = initialBudget;
    for (let i = 0; i < running.length && budget > 0; i++) {
      const request = running[i]!;
      const n = this.tokensWanted(request, budget);
      if (n <= 0) continue;
      const end = request.computed + n;
      const isWithinBlocks = end <= request.capacity;
      if (!isWithinBlocks) {
        let isPreempted = false;
        while (kv.missing(request, end) > kv.pool.freeCount) {
          const victim = this.pickVictim();
          const at = running.indexOf(victim);
          running.splice(at, 1);
          if (at < i) i--;
          budget += step.remove(victim);
          this.preempt(victim, step);
          isPreempted = victim === request;
          if (isPreempted) break;
        }
        if (isPreempted) break;
      }
      if (!isWithinBlocks || end >= (request.cachedBlocks + 1) * request.blockSize) kv.extend(request, end);
      step.add(request, n);
      budget -= n;
    }
    return budget;
  }

  private tokensWanted(request: EngineRequest, budget: number): number {
    const { placeholders, computed, promptLength } = request;
    // With async scheduling the step in flight may be known to reach the limit already.
    if (placeholders > 0 && computed + 2 - placeholders >= promptLength + request.maxOutput) return 0;
    const behind = promptLength + request.outputCount + placeholders - computed;
    return Math.min(behind, budget, this.options.maxModelLen - 1 - computed);
  }

  private pickVictim(): EngineRequest {
    const { running } = this;
    let victim = running[running.length - 1]!;
    if (this.options.policy !== 'priority') return victim;
    for (const request of running) {
      const isWorse =
        request.priority > victim.priority ||
        (request.priority === victim.priority && request.arrival > victim.arrival);
      if (isWorse) victim = request;
    }
    return victim;
  }

  private preempt(request: EngineRequest, step: Step): void {
    this.kv.release(request);
    request.status = 'preempted';
    request.computed = 0;
    request.placeholders = 0;
    request.preemptions++;
    this.preemptionCount++;
    this.waiting.putBack(request);
    step.preempted.push(request);
  }

  private scheduleWaiting(step: Step, initialBudget: number): void {
    const { waiting, running, prefix } = this;
    let budget = initialBudget;
    while (budget > 0 && running.length < this.options.maxNumSeqs) {
      const request = waiting.peek();
      if (!request) return;
      const n = this.kv.admit(request, budget);
      // Head-of-line blocking: nothing behind a request that does not fit is considered.
      if (n === 0) return;
      waiting.shift();
      running.push(request);
      if (request.status === 'preempted') {
        prefix.preemptedQueries += request.tokenCount;
        prefix.preemptedHits += request.computed;
        step.resumed.push(request);
      } else {
        prefix.queries += request.tokenCount;
        prefix.hits += request.computed;
        request.hitTokens = request.computed;
        step.admitted.push(request);
      }
      request.status = 'running';
      step.add(request, n);
      budget -= n;
    }
  }

  /** Counts the step's tokens as computed at once, as vLLM does, and sums what the step time depends on. */
  private advance(step: Step): void {
    const { count, requests, tokens, yields, epochs } = step;
    for (let i = 0; i < count; i++) {
      const request = requests[i]!;
      const n = tokens[i]!;
      const context = request.computed;
      step.totalTokens += n;
      if (n === 1 && context >= request.promptLength) {
        step.decodes++;
        step.decodeContext += context;
      } else {
        step.chunks++;
        step.prefillTokens += n;
        step.prefillPairs += n * (context + n / 2);
      }
      request.computed = context + n;
      epochs[i] = request.preemptions;
      yields[i] = context + n >= request.promptLength + request.outputCount ? 1 : 0;
      if (this.isAsync && yields[i] === 1) request.placeholders++;
    }
  }

  private finish(request: EngineRequest, reason: 'length' | 'stop' | 'abort'): void {
    request.status = 'finished';
    request.finishReason = reason;
    this.kv.release(request);
  }

  private dropFinished(): void {
    const { running } = this;
    let kept = 0;
    for (const request of running) if (request.status === 'running') running[kept++] = request;
    running.length = kept;
  }
}
