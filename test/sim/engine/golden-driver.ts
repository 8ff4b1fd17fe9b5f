import { readFileSync } from 'node:fs';
import type { KvEvent } from '../../../sim/engine/kv-events.ts';
import { EngineRequest } from '../../../sim/engine/request.ts';
import { Scheduler, type SchedulerOptions } from '../../../sim/engine/scheduler.ts';
import { Step } from '../../../sim/engine/step.ts';

/** One recorded trace: its name and, per step, the lines the real scheduler printed. */
export interface GoldenSection {
  name: string;
  /**
   * A step starts at a line that begins with STEP, SCHED, UPDATE, free or reset; its events, outputs and statistics
   * follow.
   */
  steps: string[][];
}

/** Parses a golden file of real vLLM's scheduler into sections and steps. */
export function readGolden(file: string): Map<string, GoldenSection> {
  const text = readFileSync(new URL(`../../fixtures/${file}`, import.meta.url), 'utf8');
  const sections = new Map<string, GoldenSection>();
  let current: GoldenSection | undefined;
  for (const line of text.split('\n')) {
    const header = /^== (\w)\b/.exec(line);
    if (header) {
      current = { name: header[1]!, steps: [] };
      sections.set(current.name, current);
    } else if (current && line !== '') {
      if (/^ {2,3}(STEP|SCHED|UPDATE|free|reset)/.test(line)) current.steps.push([]);
      current.steps.at(-1)!.push(line);
    }
  }
  return sections;
}

/**
 * Drives our scheduler the way the recording drove vLLM's, and prints the same lines. Names and sampled ids count up
 * per driver.
 */
export class GoldenDriver {
  readonly lines: string[] = [];
  scheduler!: Scheduler;
  private readonly blockNames = new Map<number, string>();
  private lastSampled = 1000;
  private step!: Step;

  start(name: string, options: Partial<SchedulerOptions> = {}): void {
    this.lines.push(`== ${name}`);
    const all = { blockCount: 11, blockSize: 4, maxNumSeqs: 4, maxBatchedTokens: 16, maxModelLen: 64, ...options };
    this.scheduler = new Scheduler({ ...all, recordEvents: true, sample: () => ++this.lastSampled });
    this.step = new Step(all.maxNumSeqs);
  }

  section(name: string): void {
    this.lines.push(`== ${name}`);
  }

  add(id: string, tokens: number[], maxOutput: number, extra: { priority?: number; salt?: string } = {}): void {
    this.scheduler.add(new EngineRequest({ id, prompt: Int32Array.from(tokens), maxOutput, ...extra }, 4));
  }

  run(limit = 100): void {
    for (let i = 0; i < limit && this.scheduler.hasUnfinished; i++) this.stepOnce();
  }

  /** One synchronous step: schedule, sample, update. */
  stepOnce(): void {
    const { scheduler, step } = this;
    const before = { ...scheduler.prefix };
    scheduler.schedule(step);
    const admitted = step.admitted.map((r) => `('${r.id}', [${held(r).join(', ')}], 'computed', ${r.hitTokens})`);
    this.lines.push(
      `  STEP ${scheduledDict(step)} new [${admitted.join(', ')}] resumed ${idSet(step.resumed)} preempted ${idSet(step.preempted)}`,
    );
    scheduler.update(step);
    this.print(step, true);
    const { prefix } = scheduler;
    this.lines.push(
      `${this.stats()} pc ${prefix.queries - before.queries} ${prefix.hits - before.hits} preempted pc ` +
        `${prefix.preemptedQueries - before.preemptedQueries} ${prefix.preemptedHits - before.preemptedHits}`,
    );
  }

  /** Up to two steps are scheduled before the oldest one's output is applied. */
  runPipelined(): void {
    const { scheduler } = this;
    const pending: Step[] = [];
    while (scheduler.hasUnfinished || pending.length > 0) {
      const step = new Step(4);
      scheduler.schedule(step);
      if (step.totalTokens > 0) {
        this.lines.push(`  SCHED ${scheduledDict(step)} preempted ${idSet(step.preempted)}`);
        pending.push(step);
      }
      if (pending.length < 2 && step.totalTokens > 0) continue;
      const oldest = pending.shift();
      if (!oldest) continue;
      this.lines.push(
        `   UPDATE [${scheduled(oldest)
          .map(([id, n]) => `('${id}', ${n})`)
          .join(', ')}]`,
      );
      scheduler.update(oldest);
      this.print(oldest, false);
      this.lines.push(this.stats());
    }
  }

  printFree(label = 'free'): void {
    this.lines.push(`  ${label} [${this.scheduler.kv.pool.freeOrder().join(', ')}]`);
  }

  printReset(): void {
    this.lines.push(`  reset ${this.scheduler.resetPrefixCache() ? 'True' : 'False'}`);
    this.printEvents();
  }

  private print(step: Step, withCached: boolean): void {
    this.printEvents();
    for (let i = 0; i < step.count; i++) {
      if (step.sampled[i]! < 0) continue;
      const request = step.requests[i]!;
      const cached = withCached ? ` cached ${request.outputCount === 1 ? request.hitTokens : 'None'}` : '';
      this.lines.push(`    OUT ${request.id} [${step.sampled[i]}] ${request.finishReason ?? 'None'}${cached}`);
    }
  }

  private printEvents(): void {
    for (const event of this.scheduler.takeEvents()) this.lines.push(`      EVT ${this.formatEvent(event)}`);
  }

  private formatEvent(event: KvEvent): string {
    if (event.type === 'cleared') return 'AllBlocksCleared';
    if (event.type === 'removed') return `Removed ['${this.blockName(event.hash)}']`;
    const hashes = event.hashes.map((hash) => `'${this.blockName(hash)}'`).join(', ');
    const parent = event.parent === null ? 'None' : this.blockName(event.parent);
    const extra = event.extraKeys
      .map((keys) => (keys ? `(${keys.map((key) => `'${key}'`).join(', ')},)` : 'None'))
      .join(', ');
    return `Stored [${hashes}] parent ${parent} tok [${event.tokenIds.join(', ')}] g 0 full_attention [${extra}]`;
  }

  private blockName(hash: number): string {
    const name = this.blockNames.get(hash) ?? `h${this.blockNames.size}`;
    this.blockNames.set(hash, name);
    return name;
  }

  private stats(): string {
    const { running, waiting, kv } = this.scheduler;
    return `    STAT run ${running.length} wait ${waiting.size} usage ${kv.pool.usageRatio.toFixed(3)}`;
  }
}

function scheduled(step: Step): [string, number][] {
  return Array.from({ length: step.count }, (_, i) => [step.requests[i]!.id, step.tokens[i]!]);
}

function scheduledDict(step: Step): string {
  return `{${scheduled(step)
    .map(([id, n]) => `'${id}': ${n}`)
    .join(', ')}}`;
}

function held(request: EngineRequest): number[] {
  return Array.from(request.blocks.subarray(0, request.blockCount));
}

function idSet(requests: EngineRequest[]): string {
  return requests.length === 0 ? 'set()' : `{${requests.map((r) => `'${r.id}'`).join(', ')}}`;
}
