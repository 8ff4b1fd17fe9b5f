import type { EngineRequest } from './request.ts';

/**
 * What decides how long a step takes: sums over its requests, before the step. Symbols as in
 * `sim/data/calibration/README.md`.
 */
export interface StepBatch {
  /** P: prompt (or recomputed) tokens. */
  prefillTokens: number;
  /** Prefill chunks. */
  chunks: number;
  /** Sum over chunks of tokens * (context + tokens / 2), query-key pairs. */
  prefillPairs: number;
  /** D: sequences that decode one token. */
  decodes: number;
  /** Sum of the decoding sequences' context, tokens. */
  decodeContext: number;
}

/** One scheduled step. The engine reuses one object for all its steps, so that a step allocates nothing. */
export class Step implements StepBatch {
  /** Entries below `count` are valid. */
  count = 0;
  readonly requests: EngineRequest[] = [];
  /** Tokens computed for each request. */
  readonly tokens: Int32Array;
  /** 1 where the request is caught up at the end of the step and yields a token. */
  readonly yields: Uint8Array;
  /** `preemptions` of each request when scheduled. */
  readonly epochs: Int32Array;
  /** Token that each request yielded; -1 none. Filled by `Scheduler.update`. */
  readonly sampled: Int32Array;
  readonly admitted: EngineRequest[] = [];
  readonly resumed: EngineRequest[] = [];
  readonly preempted: EngineRequest[] = [];
  totalTokens = 0;
  prefillTokens = 0;
  chunks = 0;
  prefillPairs = 0;
  decodes = 0;
  decodeContext = 0;

  constructor(maxNumSeqs: number) {
    this.tokens = new Int32Array(maxNumSeqs);
    this.yields = new Uint8Array(maxNumSeqs);
    this.epochs = new Int32Array(maxNumSeqs);
    this.sampled = new Int32Array(maxNumSeqs);
  }

  clear(): void {
    this.count = 0;
    this.admitted.length = 0;
    this.resumed.length = 0;
    this.preempted.length = 0;
    this.totalTokens = 0;
    this.prefillTokens = 0;
    this.chunks = 0;
    this.prefillPairs = 0;
    this.decodes = 0;
    this.decodeContext = 0;
  }

  add(request: EngineRequest, tokens: number): void {
    this.requests[this.count] = request;
    this.tokens[this.count++] = tokens;
  }

  /**
   * Takes out a request that was preempted after it had been scheduled; returns its tokens, 0 if it was not scheduled.
   */
  remove(request: EngineRequest): number {
    const at = this.requests.indexOf(request);
    if (at < 0 || at >= this.count) return 0;
    const tokens = this.tokens[at]!;
    this.tokens.copyWithin(at, at + 1, this.count);
    this.requests.splice(at, 1);
    this.count--;
    return tokens;
  }
}
