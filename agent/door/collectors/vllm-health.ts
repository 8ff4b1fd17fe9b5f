import type { Dispatcher } from 'undici';
import { z } from 'zod';
import type { Env, Timer } from '../../../shared/env.ts';
import { errorMessage, LodestarError } from '../../../shared/errors.ts';
import { CollectorRecord, type Collector, type CollectorStatus } from './collector.ts';
import { getOk, getText, type GetOptions } from './http-get.ts';

/** A model or LoRA adapter that an instance serves; `parent` is the base model of an adapter. */
export interface ServedModel {
  id: string;
  maxModelLen: number | undefined;
  parent: string | undefined;
}

/** `starting`: not up yet since the collector began; `down`: was up and no longer is. Requests go to `up` only. */
export interface VllmHealth {
  health: 'up' | 'down' | 'starting';
  version: string | undefined;
  models: readonly ServedModel[];
}

export interface VllmHealthOptions {
  /** Base URL of the server. */
  url: string;
  apiKey?: string | undefined;
  periodMs: number;
  /** How long a late answer to a check is waited for. */
  timeoutMs: number;
  dispatcher: Dispatcher;
  env: Pick<Env, 'clock' | 'log'>;
  /** Called whenever health, version or models have changed. */
  onChange?: ((health: VllmHealth) => void) | undefined;
}

const modelsBody = z.object({
  data: z.array(z.object({ id: z.string(), max_model_len: z.number().nullish(), parent: z.string().nullish() })),
});
const versionBody = z.object({ version: z.string() });

const MODELS_PERIOD_MS = 5000;
/** The lists of servers with thousands of adapters have several MiB. */
const MAX_BODY_BYTES = 16 * 1024 * 1024;
const MODELS_TIMEOUT_MS = 10_000;

/**
 * What a check can find. `gone`: nothing listens there, or vLLM says that its engine is dead. `odd`: another answer.
 * `missed`: none, which alone says nothing.
 */
type Finding = 'ok' | 'gone' | 'missed';

/**
 * Findings in a row that take an instance out, and that let it in again. An engine that is merely silent is the matter
 * of its door (agent/door/life).
 */
const ROW: Record<Finding, number> = { gone: 2, missed: Infinity, ok: 2 };

/**
 * Asks /health each period, and beside it /version and /v1/models every 5 s. An instance is `up` only once its models
 * are known; a model list that is late or unreadable later leaves the known one in force.
 */
export class VllmHealthCollector implements Collector<VllmHealth> {
  readonly name: string;
  private readonly options: VllmHealthOptions;
  private readonly record: CollectorRecord<VllmHealth>;
  private readonly get: GetOptions;
  private current: VllmHealth = { health: 'starting', version: undefined, models: [] };
  private timer: Timer | undefined;
  private checking: Promise<void> | undefined;
  private again = false;
  private finding: Finding = 'missed';
  private inRow = 0;
  private heardAtMs = -Infinity;
  private foundGoneMs: number | undefined;
  /** the models were read since the engine last came up */
  private described = false;
  private describing = false;
  private modelsAtMs = -Infinity;
  private readonly env: Pick<Env, 'clock' | 'log'>;

  constructor(options: VllmHealthOptions) {
    this.options = options;
    this.env = options.env;
    this.name = `vllm-health ${options.url}`;
    this.record = new CollectorRecord(this.name, options.env);
    const { dispatcher, apiKey, env, timeoutMs } = options;
    this.get = { dispatcher, apiKey, clock: env.clock, timeoutMs, maxBytes: MAX_BODY_BYTES };
  }

  start(): void {
    if (this.timer) return;
    this.timer = this.env.clock.every(this.options.periodMs, () => void this.checkNow());
    void this.checkNow();
  }

  stop(): void {
    this.timer?.cancel();
    this.timer = undefined;
  }

  latest(): { value: VllmHealth; atMs: number } | undefined {
    return this.record.latest();
  }

  /** What is known now, also while the instance is down: `latest` keeps the age of the last answer. */
  get state(): VllmHealth {
    return this.current;
  }

  /** Clock ms of the newest good answer to a check; −Infinity before any. */
  get heardMs(): number {
    return this.heardAtMs;
  }

  /** Clock ms when the check began that found the engine gone; undefined while it is not. */
  get goneMs(): number | undefined {
    return this.foundGoneMs;
  }

  status(): CollectorStatus {
    return this.record.status();
  }

  /** A request to the instance has failed: look at once, after the check under way if there is one. */
  noteFailure(): void {
    if (!this.timer) return;
    if (this.checking) this.again = true;
    else void this.checkNow();
  }

  /** Checks now, or joins the check under way; never rejects. */
  checkNow(): Promise<void> {
    this.checking ??= this.checkOnce().finally(() => {
      this.checking = undefined;
      if (!this.again) return;
      this.again = false;
      if (this.timer) void this.checkNow();
    });
    return this.checking;
  }

  private async checkOnce(): Promise<void> {
    const { clock } = this.env;
    const startMs = clock.nowMs();
    const { finding, error } = await this.ask();
    this.find(finding, startMs);
    // The first list is waited for: nothing can be routed without it. Later ones must not hold up the checks.
    const described = finding === 'ok' ? this.describe() : undefined;
    if (!this.described) await described;
    this.settle();
    if (finding !== 'ok') this.record.fail(error, clock.nowMs() - startMs);
    else if (this.described) this.record.succeed(this.current, clock.nowMs() - startMs);
  }

  private async ask(): Promise<{ finding: Finding; error?: unknown }> {
    const url = `${this.options.url}/health`;
    try {
      const { status } = await getText(url, this.get);
      if (status === 200) {
        this.heardAtMs = this.env.clock.nowMs();
        return { finding: 'ok' };
      }
      return {
        finding: status === 503 ? 'gone' : 'missed',
        error: new LodestarError('UPSTREAM_FAILED', `${url} answered ${status}`),
      };
    } catch (error) {
      return { finding: (error as NodeJS.ErrnoException).code === 'ECONNREFUSED' ? 'gone' : 'missed', error };
    }
  }

  private find(finding: Finding, startMs: number): void {
    this.inRow = finding === this.finding ? this.inRow + 1 : 1;
    this.finding = finding;
    // The second opinion is asked for at once.
    if (finding === 'gone' && this.inRow < ROW.gone) this.again = true;
    if (finding === 'gone' && this.inRow === ROW.gone) this.foundGoneMs = startMs;
    if (finding === 'ok') this.foundGoneMs = undefined;
  }

  /** Health follows from the findings in a row. */
  private settle(): void {
    const { health } = this.current;
    const enough = this.inRow >= (health === 'starting' && this.finding === 'ok' ? 1 : ROW[this.finding]);
    if (!enough) return;
    if (this.finding === 'ok') {
      if (this.described) this.change({ ...this.current, health: 'up' });
    } else if (health === 'up') {
      // It may come back with other models.
      if (this.finding === 'gone') this.described = false;
      this.change({ ...this.current, health: 'down' });
    }
  }

  /**
   * Reads models and version where they are due; undefined where they are not. Settles when they are read; never
   * rejects.
   */
  private describe(): Promise<void> | undefined {
    const { clock } = this.env;
    if (this.describing || (this.described && clock.nowMs() - this.modelsAtMs < MODELS_PERIOD_MS)) return undefined;
    this.describing = true;
    return this.readDescription().finally(() => {
      this.modelsAtMs = clock.nowMs();
      this.describing = false;
    });
  }

  private async readDescription(): Promise<void> {
    const get = { ...this.get, timeoutMs: MODELS_TIMEOUT_MS };
    try {
      const [models, version] = await Promise.all([this.readModels(get), this.readVersion(get)]);
      this.described = true;
      const next = { ...this.current, models, version };
      if (next.health === 'up') this.change(next);
      else this.current = next;
    } catch (error) {
      this.record.fail(error);
    }
  }

  private async readModels(get: GetOptions): Promise<ServedModel[]> {
    const url = `${this.options.url}/v1/models`;
    const { status, text } = await getText(url, get);
    if (status === 401)
      throw new LodestarError(
        'UPSTREAM_FAILED',
        `${url} answered 401: set the apiKey of this instance under agent.instances`,
      );
    if (status !== 200) throw new LodestarError('UPSTREAM_FAILED', `${url} answered ${status}`);
    const { data } = parseBody(url, text, modelsBody);
    return data.map((model) => ({
      id: model.id,
      maxModelLen: model.max_model_len ?? undefined,
      parent: model.parent ?? undefined,
    }));
  }

  /** The version only names the kind of an instance, so a server without the route is still up. */
  private async readVersion(get: GetOptions): Promise<string | undefined> {
    try {
      const url = `${this.options.url}/version`;
      return parseBody(url, await getOk(url, get), versionBody).version;
    } catch {
      return undefined;
    }
  }

  private change(next: VllmHealth): void {
    const before = this.current;
    this.current = next;
    if (before.health === next.health && before.version === next.version && sameModels(before.models, next.models))
      return;
    this.options.onChange?.(next);
  }
}

function parseBody<T>(url: string, text: string, schema: z.ZodType<T>): T {
  try {
    return schema.parse(JSON.parse(text));
  } catch (error) {
    throw new LodestarError(
      'UPSTREAM_FAILED',
      `${url} answered a body that is not vLLM's: ${errorMessage(error).slice(0, 200)}`,
      { cause: error },
    );
  }
}

function sameModels(a: readonly ServedModel[], b: readonly ServedModel[]): boolean {
  return (
    a.length === b.length &&
    a.every(
      (model, at) => model.id === b[at]?.id && model.maxModelLen === b[at].maxModelLen && model.parent === b[at].parent,
    )
  );
}
