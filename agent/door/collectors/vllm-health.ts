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
const MAX_BODY_BYTES = 1024 * 1024;
const MODELS_TIMEOUT_MS = 5000;
/** A server that is merely busy may miss one period; three of them (750 ms by default) still leave a dead one out within a second. */
const TIMEOUT_PERIODS = 3;

/**
 * Asks /health each period, and /version and /v1/models every 5 s and after a recovery. An instance is `up` only once its models are known. The first
 * refused connection, error status or timeout makes it `down`.
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
  private modelsAtMs = -Infinity;

  constructor(options: VllmHealthOptions) {
    this.options = options;
    this.name = `vllm-health ${options.url}`;
    this.record = new CollectorRecord(this.name, options.env);
    const { dispatcher, apiKey, env } = options;
    this.get = { dispatcher, apiKey, clock: env.clock, timeoutMs: options.periodMs * TIMEOUT_PERIODS, maxBytes: MAX_BODY_BYTES };
  }

  start(): void {
    if (this.timer) return;
    this.timer = this.options.env.clock.every(this.options.periodMs, () => void this.checkNow());
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
    const { clock } = this.options.env;
    const startMs = clock.nowMs();
    try {
      const { status } = await getText(`${this.options.url}/health`, this.get);
      if (status !== 200) throw new LodestarError('UPSTREAM_FAILED', `${this.options.url}/health answered ${status}`);
      const modelsDue = this.current.health !== 'up' || clock.nowMs() - this.modelsAtMs >= MODELS_PERIOD_MS;
      const next = modelsDue ? await this.describe() : this.current;
      this.change({ ...next, health: 'up' });
      this.record.succeed(this.current, clock.nowMs() - startMs);
    } catch (error) {
      this.record.fail(error, clock.nowMs() - startMs);
      if (this.current.health === 'up') this.change({ ...this.current, health: 'down' });
    }
  }

  private async describe(): Promise<Pick<VllmHealth, 'version' | 'models'>> {
    const get = { ...this.get, timeoutMs: Math.max(this.get.timeoutMs, MODELS_TIMEOUT_MS) };
    const [models, version] = await Promise.all([this.readModels(get), this.readVersion(get)]);
    this.modelsAtMs = this.options.env.clock.nowMs();
    return { models, version };
  }

  private async readModels(get: GetOptions): Promise<ServedModel[]> {
    const url = `${this.options.url}/v1/models`;
    const { status, text } = await getText(url, get);
    if (status === 401) throw new LodestarError('UPSTREAM_FAILED', `${url} answered 401: set the apiKey of this instance under agent.instances`);
    if (status !== 200) throw new LodestarError('UPSTREAM_FAILED', `${url} answered ${status}`);
    const { data } = parseBody(url, text, modelsBody);
    return data.map((model) => ({ id: model.id, maxModelLen: model.max_model_len ?? undefined, parent: model.parent ?? undefined }));
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
    if (before.health === next.health && before.version === next.version && sameModels(before.models, next.models)) return;
    this.options.onChange?.(next);
  }
}

function parseBody<T>(url: string, text: string, schema: z.ZodType<T>): T {
  try {
    return schema.parse(JSON.parse(text));
  } catch (error) {
    throw new LodestarError('UPSTREAM_FAILED', `${url} answered a body that is not vLLM's: ${errorMessage(error).slice(0, 200)}`, { cause: error });
  }
}

function sameModels(a: readonly ServedModel[], b: readonly ServedModel[]): boolean {
  return a.length === b.length && a.every((model, at) => model.id === b[at]?.id && model.maxModelLen === b[at].maxModelLen && model.parent === b[at].parent);
}
