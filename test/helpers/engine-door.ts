import { BLOCK_BYTES, fingerprint } from '../../agent/request/fingerprint.ts';
import { LawFit } from '../../agent/door/law/law-fit.ts';
import { Ledger, type LedgerRequest } from '../../agent/door/ledger.ts';
import { CacheView } from '../../agent/door/cache/cache-view.ts';
import { type Rng, seededRng } from '../../shared/env.ts';
import { decodeStepMs, prefillBaseMs, GENERIC_LAW, prefillWorkMs } from '../../shared/predictor/step-law.ts';
import { Engine } from '../../sim/engine/engine.ts';
import { findGpu, type GpuProfile, loadGpus } from '../../sim/engine/gpus.ts';
import type { EngineRequest } from '../../sim/engine/request.ts';
import { linearStepTime, withNoise } from '../../sim/engine/step-time.ts';
import { below } from './random.ts';
import { VirtualClock } from './virtual-clock.ts';

const gpus = loadGpus();
/** A token id takes four bytes. */
const TOKENS_PER_BLOCK = BLOCK_BYTES / 4;
const BLOCK_TOKENS = 16;
const MAX_BATCHED_TOKENS = 2048;

export interface EngineDoorOptions {
  noise?: number;
  frontEndMs?: number;
  kvTokens?: number;
  maxNumSeqs?: number;
  seed?: number;
}

/**
 * An emulated engine on virtual time with a door's ledger before it, fed by the engine's tokens as door.ts feeds it
 * from a stream.
 */
export class EngineDoor {
  readonly clock = new VirtualClock();
  readonly gpu: GpuProfile;
  readonly engine: Engine;
  readonly ledger: Ledger;
  readonly cache: CacheView;
  readonly fit = new LawFit(GENERIC_LAW);
  readonly rng: Rng;

  constructor(gpu: string, options: EngineDoorOptions = {}) {
    this.gpu = findGpu(gpus, gpu);
    this.rng = seededRng(options.seed ?? 1);
    const kvTokens = options.kvTokens ?? this.gpu.kvTokens;
    const maxNumSeqs = options.maxNumSeqs ?? 256;
    this.engine = new Engine({
      clock: this.clock,
      stepTime: withNoise(linearStepTime(this.gpu), options.noise ?? 0, seededRng((options.seed ?? 1) + 1000)),
      frontEndMs: options.frontEndMs ?? 8,
      blockCount: Math.floor(kvTokens / BLOCK_TOKENS) + 1,
      blockSize: BLOCK_TOKENS,
      maxNumSeqs,
      maxBatchedTokens: MAX_BATCHED_TOKENS,
      maxModelLen: 32_768,
      sample: (request) => request.outputCount,
    });
    this.cache = new CacheView(this.clock, kvTokens, BLOCK_TOKENS, undefined);
    this.ledger = new Ledger(this.clock, this.cache, this.fit, {
      kvTokens,
      blockTokens: BLOCK_TOKENS,
      maxNumSeqs,
      maxBatchedTokens: MAX_BATCHED_TOKENS,
    });
  }

  /** Random token ids: a prompt like no other. */
  prompt(length: number): Int32Array {
    return Int32Array.from({ length }, () => below(this.rng, 30_000));
  }

  /** Sends a prompt; the answer ends after `maxOutput` tokens. */
  send(prompt: Int32Array, maxOutput: number, stream = true): { entry: LedgerRequest; request: EngineRequest } {
    const text = Buffer.from(prompt.buffer);
    const { hashes, end } = fingerprint(text, { salt: '', model: 'm', cacheSalt: '' });
    const entry = this.ledger.open({
      hashes,
      end,
      text,
      model: 'm',
      cacheSalt: '',
      promptTokens: prompt.length,
      tokensPerBlock: TOKENS_PER_BLOCK,
      exactTokens: true,
      stream,
      sequences: 1,
      computed: true,
    });
    const request = this.engine.submit(
      { id: 'r', prompt, maxOutput },
      {
        onToken: () => stream && this.ledger.tokens(entry, 1),
        onFinish: (done) =>
          this.ledger.close(entry, { outputTokens: done.outputCount, cachedTokens: Math.max(0, done.hitTokens) }),
      },
    );
    return { entry, request };
  }

  /** Sends requests as a Poisson process of `perSecond` while `ms` pass. `make` sends one. */
  traffic(ms: number, perSecond: number, make: () => void): void {
    const endMs = this.clock.nowMs() + ms;
    const next = (): void => {
      const waitMs = (-Math.log(1 - this.rng()) * 1000) / perSecond;
      if (this.clock.nowMs() + waitMs >= endMs) return;
      this.clock.after(waitMs, () => {
        make();
        next();
      });
    };
    next();
    this.clock.advance(ms);
  }

  /** Requests of mixed length: half short, half up to 2,500 tokens; answers of 20 to 180. */
  readonly sendMixed = (): void => {
    const length = this.rng() < 0.5 ? 30 + below(this.rng, 300) : 300 + below(this.rng, 2200);
    this.send(this.prompt(length), 20 + below(this.rng, 160));
  };

  /** Predicted over true time of typical steps, by name. `slow`: factor of throttling in force. */
  stepRatios(slow = 1): Record<string, number> {
    const law = this.fit.state();
    const truth = linearStepTime(this.gpu);
    const out: Record<string, number> = {};
    for (const decodes of [1, 2, 4, 8, 16, 32]) {
      const decodeContext = decodes * 900;
      out[`decode ${decodes}`] =
        decodeStepMs(law, decodes, decodeContext) /
        (slow * truth({ prefillTokens: 0, chunks: 0, prefillPairs: 0, decodes, decodeContext }));
    }
    for (const tokens of [256, 512, 1024, 2048]) {
      for (const decodes of [0, 8]) {
        const decodeContext = decodes * 900;
        const batch = { prefillTokens: tokens, chunks: 1, prefillPairs: (tokens * tokens) / 2, decodes, decodeContext };
        out[`prefill ${tokens} beside ${decodes}`] =
          (prefillBaseMs(law, decodes, decodeContext) + prefillWorkMs(law, tokens, 0, decodes)) / (slow * truth(batch));
      }
    }
    return out;
  }
}
