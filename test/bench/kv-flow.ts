import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fingerprint } from '../../agent/request/fingerprint.ts';
import { KvEventSubscriber } from '../../agent/door/kv-events/subscriber.ts';
import { CacheView } from '../../agent/door/cache/cache-view.ts';
import type { CachePrompt } from '../../agent/request/prompt.ts';
import type { CacheLook, Sequence } from '../../agent/door/cache/records.ts';
import type { TokenProbe } from '../../agent/door/cache/token-probe.ts';
import { realClock, silentLog } from '../../shared/env.ts';
import type { Figure } from './figure.ts';
import {
  BLOCK_TOKENS,
  EVENTS_PER_STEP,
  HELD,
  type Order,
  PER_STEP,
  PROMPTS,
  promptsOf,
  RUN,
  tokensOf,
  VOCABULARY,
  wordOf,
} from './kv-flow-load.ts';

const EVENTS_PER_S = 50_000;
const SECONDS = 10;
const TICK_MS = 20;
/** Steps whose prompts are in flight: 64 requests. */
const AHEAD = 16;
/** Steps published but not applied, at most, where as many as can be are sent. */
const WINDOW = 40;
const WARM_STEPS = (2 * HELD) / PER_STEP;
/** A tick and a step under way are no queue. */
const BACKLOG_MS = 100;
const WAIT_MS = 60_000;
const SCOPE = { salt: '00', model: 'm', cacheSalt: '' };
const PROMPT_TOKENS = RUN * BLOCK_TOKENS;

/**
 * KV events of an engine whose cache is full, from a publisher in another process over ZeroMQ through the agent's
 * subscriber into the door's view: as many blocks go as come, each run is found in the text or tokens of a request in
 * flight, and what has changed is taken out each 20 ms. At 50,000 block events a second, then as many as one core
 * takes.
 */
export async function kvFlowFigures(): Promise<Figure[]> {
  const flow = await KvFlow.start();
  try {
    return [...(await flow.paced()), ...(await flow.unpaced()), flow.attributed()];
  } finally {
    flow.close();
  }
}

class KvFlow {
  private readonly child: ChildProcess;
  private readonly view: CacheView;
  private readonly subscriber: KvEventSubscriber;
  private readonly prompts: CachePrompt[];
  private readonly live: { sequence: Sequence; look: CacheLook }[][] = [];
  private readonly ticks: NodeJS.Timeout;
  private applied = 0;
  /** changed prefix blocks that were taken out */
  private drained = 0;
  private onApplied: () => void = () => undefined;

  private constructor(child: ChildProcess, endpoints: { endpoint: string; replayEndpoint: string }) {
    this.child = child;
    this.prompts = Array.from({ length: PROMPTS }, (_, prompt) => promptOf(prompt));
    this.view = new CacheView(realClock, HELD * PROMPT_TOKENS, BLOCK_TOKENS, tokenizer());
    this.view.setSize(HELD * PROMPT_TOKENS, BLOCK_TOKENS);
    for (let step = 0; step < AHEAD; step++) this.admit(step);
    const { events } = this.view;
    const sink = {
      begin: (complete: boolean) => events.begin(complete),
      fail: (problem: string) => events.fail(problem),
      apply: (batch: Parameters<typeof events.apply>[0]) => {
        events.apply(batch);
        this.step();
      },
    };
    this.subscriber = new KvEventSubscriber({
      instance: 'bench',
      ...endpoints,
      rank: undefined,
      sink,
      env: { clock: realClock, log: silentLog },
    });
    this.subscriber.start();
    this.ticks = setInterval(() => {
      const { add, remove } = this.view.drainDelta();
      this.drained += add.length + remove.length;
    }, TICK_MS);
  }

  /** With its cache full. */
  static async start(): Promise<KvFlow> {
    const child = fork(
      new URL(`./kv-flow-publisher.${import.meta.url.endsWith('.ts') ? 'ts' : 'js'}`, import.meta.url),
    );
    const [endpoints] = (await once(child, 'message')) as [{ endpoint: string; replayEndpoint: string }];
    const flow = new KvFlow(child, endpoints);
    await until('the subscriber is connected', () => flow.subscriber.latest().value.connected);
    await flow.granted(WARM_STEPS);
    return flow;
  }

  close(): void {
    clearInterval(this.ticks);
    this.subscriber.stop();
    this.child.disconnect();
  }

  async paced(): Promise<Figure[]> {
    const stepMs = (EVENTS_PER_STEP * 1000) / EVENTS_PER_S;
    const first = this.applied;
    const end = first + Math.round((SECONDS * 1000) / stepMs);
    const fromWallMs = Date.now() - first * stepMs;
    this.order({ kind: 'paced', fromWallMs, stepMs, steps: end });
    const cpu = process.cpuUsage();
    const startMs = performance.now();
    let most = 0;
    let late = 0;
    await until('all events are applied', () => {
      const due = Math.min(end, Math.floor((Date.now() - fromWallMs) / stepMs));
      most = Math.max(most, (due - this.applied) * stepMs);
      if (due > end - 1000 / stepMs && due < end) late = Math.max(late, (due - this.applied) * stepMs);
      return this.applied >= end;
    });
    const tookMs = performance.now() - startMs;
    const share = shareOf(cpu, tookMs);
    const rate = ((end - first) * EVENTS_PER_STEP * 1000) / tookMs;
    return [
      {
        name: 'block events a second',
        value: rate,
        unit: '/s',
        target: `>= ${0.98 * EVENTS_PER_S} /s`,
        ok: rate >= 0.98 * EVENTS_PER_S,
      },
      {
        name: 'of one core: subscriber, view, its requests, deltas',
        value: 100 * share,
        unit: '%',
        target: '<= 100 %',
        ok: share <= 1,
      },
      { name: 'events not applied yet, most', value: most, unit: 'ms' },
      {
        name: 'events not applied yet, most in the last second',
        value: late,
        unit: 'ms',
        target: `<= ${BACKLOG_MS} ms`,
        ok: late <= BACKLOG_MS,
      },
    ];
  }

  async unpaced(): Promise<Figure[]> {
    const steps = Math.round((2 * EVENTS_PER_S * SECONDS) / EVENTS_PER_STEP / 2);
    const cpu = process.cpuUsage();
    const startMs = performance.now();
    await this.granted(steps);
    const tookMs = performance.now() - startMs;
    return [
      { name: 'most that it takes', value: (steps * EVENTS_PER_STEP * 1000) / tookMs, unit: '/s' },
      { name: 'of one core then', value: 100 * shareOf(cpu, tookMs), unit: '%' },
    ];
  }

  /**
   * Prefix blocks that the view knows by events, of those that the engine holds: the text of one block is known by its
   * request alone.
   */
  attributed(): Figure {
    const held = Array.from({ length: HELD / PER_STEP }, (_, at) => promptsOf(this.applied - 1 - at)).flat();
    const right = held.filter((prompt) => {
      const { hitTokens } = this.view.look(this.prompts[prompt] as CachePrompt);
      return hitTokens >= PROMPT_TOKENS - 2 * BLOCK_TOKENS;
    }).length;
    const { source } = this.view.figures();
    const share = source === 'events' ? right / held.length : 0;
    return {
      name: 'cached prompts that the view tells by events',
      value: 100 * share,
      unit: '%',
      target: '>= 99 %',
      ok: share >= 0.99,
    };
  }

  /** So many steps more, never more than a window of them under way. */
  private async granted(steps: number): Promise<void> {
    const end = this.applied + steps;
    const grant = (): void => this.order({ kind: 'granted', steps: Math.min(end, this.applied + WINDOW) });
    this.onApplied = () => {
      if (this.applied % (WINDOW / 4) === 0) grant();
    };
    grant();
    await until('all events are applied', () => this.applied >= end);
    this.onApplied = () => undefined;
  }

  /** A step's events are applied: its requests end, others come. */
  private step(): void {
    for (const { sequence, look } of this.live.shift() ?? []) {
      const source = sequence.prompt.exactTokens ? undefined : { path: '', headers: {}, body: [] };
      this.view.finish(
        sequence,
        { promptTokens: PROMPT_TOKENS, outputTokens: 1, cachedTokens: look.hitTokens, answer: undefined, source },
        look,
      );
    }
    this.admit(this.applied + AHEAD);
    this.applied += 1;
    this.onApplied();
  }

  private admit(step: number): void {
    this.live.push(
      promptsOf(step).map((at) => {
        const prompt = this.prompts[at] as CachePrompt;
        const look = this.view.look(prompt);
        return { sequence: this.view.admit(prompt, look, 0), look };
      }),
    );
  }

  private order(order: Order): void {
    this.child.send(order);
  }
}

/** Every other prompt is text, the others token ids; the 64th, which the view asks the tokens of, is text. */
function promptOf(at: number): CachePrompt {
  const ids = tokensOf(at);
  const exactTokens = at % 2 === 0;
  const text = exactTokens ? Buffer.from(Int32Array.from(ids).buffer) : Buffer.from(ids.map(wordOf).join(''));
  const { hashes, end } = fingerprint(text, SCOPE);
  return {
    hashes,
    end,
    text,
    model: SCOPE.model,
    cacheSalt: '',
    promptTokens: ids.length,
    tokensPerBlock: (64 * ids.length) / text.length,
    exactTokens,
  };
}

/** Tells the text of every token at the first question. */
function tokenizer(): TokenProbe {
  const tokens = { ids: VOCABULARY, spellings: VOCABULARY.map((id) => wordOf(id).replace(' ', 'Ġ')) };
  const probe: Pick<TokenProbe, 'problem' | 'isReady' | 'ask' | 'reset'> = {
    problem: '',
    isReady: true,
    ask: () => {
      Object.assign(probe, { isReady: false });
      return Promise.resolve(tokens);
    },
    reset: () => undefined,
  };
  return probe as TokenProbe;
}

function shareOf(before: NodeJS.CpuUsage, tookMs: number): number {
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000 / tookMs;
}

async function until(what: string, holds: () => boolean): Promise<void> {
  const endMs = performance.now() + WAIT_MS;
  while (!holds()) {
    if (performance.now() > endMs) throw new Error(`${what}: not within ${WAIT_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
