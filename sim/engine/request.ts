import { blockHash, chainRoot, promptBlockHashes } from './block-hash.ts';

export type FinishReason = 'length' | 'stop' | 'abort';
export type RequestStatus = 'waiting' | 'running' | 'preempted' | 'finished';

/**
 * What a request is when it reaches the engine. Tokens are ids; `promptHashes` may be given to save hashing the prompt
 * again.
 */
export interface RequestSpec {
  id: string;
  prompt: Int32Array;
  /** Output tokens at which the request ends, at least 1. */
  maxOutput: number;
  /**
   * Reason given when `maxOutput` is reached: 'length' for a client's limit, 'stop' for an end that the model chose.
   */
  endReason?: 'length' | 'stop';
  priority?: number;
  salt?: string | undefined;
  lora?: string | undefined;
  promptHashes?: Float64Array | undefined;
  /** Draws the output tokens; equal seeds give equal outputs. */
  outputSeed?: number;
}

/**
 * Where the outputs of a request go. Calls come in the order of the engine's time; none follows `onFinish` or an abort.
 */
export interface RequestSink {
  onToken?(request: EngineRequest, token: number, nowMs: number): void;
  onFinish(request: EngineRequest, nowMs: number): void;
  /** The engine died before the request ended. */
  onDeath?(request: EngineRequest): void;
}

/**
 * One request inside the scheduler: what is computed, which blocks it holds and which hashes its full blocks have.
 * Fields are plain numbers and typed arrays because the scheduler touches every running request on every step.
 */
export class EngineRequest {
  readonly id: string;
  readonly prompt: Int32Array;
  readonly promptLength: number;
  readonly maxOutput: number;
  readonly endReason: 'length' | 'stop';
  readonly priority: number;
  readonly salt: string | undefined;
  readonly lora: string | undefined;
  readonly root: number;
  readonly outputSeed: number;
  readonly blockSize: number;
  /** Order of arrival at the scheduler, the tie-break of the priority policy. */
  arrival = 0;
  status: RequestStatus = 'waiting';
  /** Tokens whose KV is computed, or being computed by a step in flight. */
  computed = 0;
  outputCount = 0;
  output: Int32Array;
  /** Async scheduling: tokens scheduled to be sampled whose values are not known yet. */
  placeholders = 0;
  /**
   * Counts preemptions, so that the result of a step scheduled before one is recognised: its token counts, its
   * placeholder is gone.
   */
  preemptions = 0;
  blocks: Int32Array;
  blockCount = 0;
  /** Tokens that fit in the held blocks. */
  capacity = 0;
  hashes: Float64Array;
  hashCount = 0;
  /** Held blocks whose hash is registered. */
  cachedBlocks = 0;
  /** Cached tokens found at the first admission; -1 before it. */
  hitTokens = -1;
  arrivedMs = 0;
  queuedMs = 0;
  scheduledMs = -1;
  firstTokenMs = -1;
  lastTokenMs = -1;
  finishReason: FinishReason | undefined;
  /** Set while the engine owes it something. */
  sink: RequestSink | undefined;

  constructor(spec: RequestSpec, blockSize: number) {
    this.id = spec.id;
    this.prompt = spec.prompt;
    this.promptLength = spec.prompt.length;
    this.maxOutput = spec.maxOutput;
    this.endReason = spec.endReason ?? 'length';
    this.priority = spec.priority ?? 0;
    this.salt = spec.salt;
    this.lora = spec.lora;
    this.outputSeed = spec.outputSeed ?? 0;
    this.blockSize = blockSize;
    this.root = chainRoot(spec.lora, spec.salt);
    this.output = new Int32Array(Math.min(spec.maxOutput, 64));
    this.hashes = spec.promptHashes ?? promptBlockHashes(spec.prompt, blockSize, this.root);
    this.hashCount = this.hashes.length;
    this.blocks = new Int32Array(Math.ceil((this.promptLength + Math.min(spec.maxOutput, 64)) / blockSize));
  }

  get tokenCount(): number {
    return this.promptLength + this.outputCount;
  }

  token(index: number): number {
    return index < this.promptLength ? this.prompt[index]! : this.output[index - this.promptLength]!;
  }

  appendOutput(token: number): void {
    if (this.outputCount === this.output.length) {
      const grown = new Int32Array(Math.min(this.maxOutput, this.output.length * 2));
      grown.set(this.output);
      this.output = grown;
    }
    this.output[this.outputCount++] = token;
  }

  appendBlock(block: number): void {
    if (this.blockCount === this.blocks.length) {
      const grown = new Int32Array(this.blocks.length * 2 + 1);
      grown.set(this.blocks);
      this.blocks = grown;
    }
    this.blocks[this.blockCount++] = block;
    this.capacity += this.blockSize;
  }

  dropBlocks(): void {
    this.blockCount = 0;
    this.capacity = 0;
    this.cachedBlocks = 0;
  }

  /** Hash of full block `index`, computed on first use; all tokens of the block must be known. */
  hashOf(index: number): number {
    while (this.hashCount <= index) this.appendHash();
    return this.hashes[index]!;
  }

  private appendHash(): void {
    const at = this.hashCount;
    if (at === this.hashes.length) {
      const grown = new Float64Array(at + 4 + (at >> 2));
      grown.set(this.hashes);
      this.hashes = grown;
    }
    const parent = at === 0 ? this.root : this.hashes[at - 1]!;
    this.hashes[at] = blockHash(parent, this.prompt, this.output, at * this.blockSize, this.blockSize);
    this.hashCount = at + 1;
  }
}
