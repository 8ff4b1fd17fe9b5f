import type { Clock, Timer } from '../../shared/env.ts';
import type { KvEvent } from './kv-events.ts';
import type { EngineMetrics } from './metrics.ts';
import { EngineRequest, type RequestSink, type RequestSpec } from './request.ts';
import { Scheduler, type SchedulerOptions } from './scheduler.ts';
import { Step } from './step.ts';
import type { StepTimeModel } from './step-time.ts';

export interface EngineOptions extends SchedulerOptions {
  clock: Clock;
  stepTime: StepTimeModel;
  /** Time between arrival and the scheduler's queue, for what vLLM's API server does: tokenising, IPC. */
  frontEndMs: number;
  metrics?: EngineMetrics;
  /**
   * Hears, after each step that had any, what happened to the cache since the one before: so also what an abort or a
   * reset did while the engine was idle.
   */
  onKvEvents?: ((events: readonly KvEvent[]) => void) | undefined;
}

/** Gauges as vLLM exposes them: written at the end of a step or an abort, so up to one step old. */
export interface Gauges {
  running: number;
  waiting: number;
  kvUsageRatio: number;
}

/**
 * A busy step counts from the ideal end of the step before it if the timer was late by less than this: late timers then
 * delay tokens, but do not slow the engine down. (vLLM hides such host time too, by preparing the next step while the
 * GPU works.)
 */
const HIDDEN_MS = 5;
/**
 * A timer that fires earlier than this before the step's end is set again; the rest is within what timers can resolve.
 */
const EARLY_MS = 0.75;

/**
 * One emulated vLLM engine on a clock, real or virtual: front-end delay, scheduler, steps that last what the step-time
 * model says.
 */
export class Engine {
  readonly scheduler: Scheduler;
  readonly gauges: Gauges = { running: 0, waiting: 0, kvUsageRatio: 0 };
  readonly blockSize: number;
  steps = 0;
  /** Multiplies the time of every step; a fault. */
  slowFactor = 1;
  private readonly options: EngineOptions;
  /**
   * The step under way, and with async scheduling the one scheduled behind it: empty where nothing was left to
   * schedule.
   */
  private step: Step;
  private ahead: Step | undefined;
  private readonly live = new Set<EngineRequest>();
  private stepTimer: Timer | undefined;
  private isStepping = false;
  private isHung = false;
  private hasDied = false;
  private stepStartMs = 0;
  private stepEndMs = 0;
  private busyBeforeMs = 0;

  constructor(options: EngineOptions) {
    this.options = options;
    this.blockSize = options.blockSize;
    this.scheduler = new Scheduler({
      ...options,
      recordEvents: options.recordEvents ?? options.onKvEvents !== undefined,
    });
    this.step = new Step(options.maxNumSeqs);
    this.ahead = options.asyncScheduling ? new Step(options.maxNumSeqs) : undefined;
  }

  get isDead(): boolean {
    return this.hasDied;
  }

  /** Requests accepted and not ended. */
  get inFlight(): number {
    return this.live.size;
  }

  /** Clock ms at which the running step ends; −∞ while none runs. */
  get stepEndsMs(): number {
    return this.isStepping ? this.stepEndMs : -Infinity;
  }

  /** Leading tokens of a prompt, by the hashes of its full blocks, that lie in the KV cache now. */
  cachedTokens(hashes: Float64Array): number {
    const { pool } = this.scheduler.kv;
    let blocks = 0;
    while (blocks < hashes.length && pool.lookup(hashes[blocks]!) !== 0) blocks++;
    return blocks * this.blockSize;
  }

  /** Milliseconds spent in steps until `nowMs`. */
  busyMs(nowMs: number): number {
    const current = this.isStepping && !this.isHung ? Math.min(nowMs, this.stepEndMs) - this.stepStartMs : 0;
    return this.busyBeforeMs + Math.max(0, current);
  }

  /** Accepts a request; it is queued after the front-end delay. */
  submit(spec: RequestSpec, sink: RequestSink): EngineRequest {
    const { clock, frontEndMs } = this.options;
    const request = new EngineRequest(spec, this.blockSize);
    request.arrivedMs = clock.nowMs();
    request.sink = sink;
    this.live.add(request);
    if (frontEndMs > 0) clock.after(frontEndMs, () => this.enqueue(request));
    else this.enqueue(request);
    return request;
  }

  /** Ends a request at once and frees its blocks; its sink hears nothing more. Harmless on an ended request. */
  abort(request: EngineRequest): void {
    if (!this.live.delete(request)) return;
    request.sink = undefined;
    this.scheduler.abort(request);
    this.updateGauges();
    this.wake();
  }

  resetPrefixCache(): boolean {
    return this.scheduler.resetPrefixCache();
  }

  /** While hung, the step under way never ends and no other starts. */
  setHung(isHung: boolean): void {
    if (this.isHung === isHung) return;
    this.isHung = isHung;
    if (isHung) {
      this.stepTimer?.cancel();
    } else if (this.isStepping) {
      this.stepEndMs = this.options.clock.nowMs();
      this.onStepTimer();
    } else this.wake();
  }

  /** The engine core dies: every request hears `onDeath`, later ones must not be submitted. */
  die(): void {
    if (this.hasDied) return;
    this.hasDied = true;
    this.stepTimer?.cancel();
    const dying = [...this.live];
    this.live.clear();
    for (const request of dying) {
      const { sink } = request;
      request.sink = undefined;
      this.scheduler.abort(request);
      sink?.onDeath?.(request);
    }
  }

  private enqueue(request: EngineRequest): void {
    if (request.status === 'finished' || this.hasDied) return;
    request.queuedMs = this.options.clock.nowMs();
    this.scheduler.add(request);
    this.wake();
  }

  private wake(): void {
    if (!this.isStepping && !this.isHung && !this.hasDied) this.startStep(this.options.clock.nowMs());
  }

  /**
   * Starts the step that was scheduled ahead, or else schedules one now; then, with async scheduling, the one behind
   * it.
   */
  private startStep(startMs: number): void {
    const { ahead } = this;
    if (ahead && ahead.totalTokens > 0) {
      this.ahead = this.step;
      this.step = ahead;
    } else if (!this.scheduleInto(this.step, startMs)) return;
    this.isStepping = true;
    this.stepStartMs = startMs;
    this.stepEndMs = startMs + this.options.stepTime(this.step) * this.slowFactor;
    this.armStepTimer();
    // vLLM's batch queue of two: a request that comes during this step finds the next one already decided.
    if (this.ahead && !this.scheduleInto(this.ahead, this.options.clock.nowMs())) this.ahead.clear();
  }

  private scheduleInto(step: Step, atMs: number): boolean {
    const { scheduler } = this;
    for (;;) {
      if (!scheduler.hasUnfinished) return false;
      scheduler.schedule(step);
      if (step.totalTokens > 0) break;
      scheduler.update(step);
      // Nothing fits until a request comes or goes; a preemption alone has changed what fits.
      if (step.preempted.length === 0) return false;
    }
    for (const request of step.admitted) request.scheduledMs = atMs;
    return true;
  }

  private armStepTimer(): void {
    const { clock } = this.options;
    this.stepTimer = clock.after(Math.max(0, this.stepEndMs - clock.nowMs()), () => this.onStepTimer());
  }

  private onStepTimer(): void {
    const nowMs = this.options.clock.nowMs();
    if (this.stepEndMs - nowMs > EARLY_MS) {
      this.armStepTimer();
      return;
    }
    this.scheduler.update(this.step);
    this.steps++;
    this.busyBeforeMs += this.stepEndMs - this.stepStartMs;
    this.updateGauges();
    this.publish();
    this.deliver(nowMs);
    this.isStepping = false;
    if (this.isHung || this.hasDied) return;
    this.startStep(nowMs - this.stepEndMs < HIDDEN_MS ? this.stepEndMs : this.options.clock.nowMs());
  }

  private publish(): void {
    const { onKvEvents } = this.options;
    if (!onKvEvents) return;
    const events = this.scheduler.takeEvents();
    if (events.length > 0) onKvEvents(events);
  }

  private deliver(nowMs: number): void {
    const { step } = this;
    const { metrics } = this.options;
    let tokens = 0;
    for (let i = 0; i < step.count; i++) {
      const token = step.sampled[i]!;
      if (token < 0) continue;
      const request = step.requests[i]!;
      // The sink of an earlier token may just have aborted this request, or killed the engine.
      const { sink } = request;
      if (!sink) continue;
      metrics?.onToken(request, nowMs);
      tokens++;
      if (request.firstTokenMs < 0) {
        request.firstTokenMs = nowMs;
        tokens += request.promptLength - request.hitTokens;
      }
      request.lastTokenMs = nowMs;
      const isFinished = request.status === 'finished';
      if (isFinished) {
        request.sink = undefined;
        this.live.delete(request);
        metrics?.onFinish(request, nowMs);
      }
      sink.onToken?.(request, token, nowMs);
      if (isFinished) sink.onFinish(request, nowMs);
    }
    if (tokens > 0) metrics?.iterationTokens.observe(tokens);
  }

  private updateGauges(): void {
    const { scheduler, gauges } = this;
    gauges.running = scheduler.running.length;
    gauges.waiting = scheduler.waiting.size;
    gauges.kvUsageRatio = scheduler.kv.pool.usageRatio;
  }
}
