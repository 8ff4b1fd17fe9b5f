/** Step of an estimate per answer, as a share of a block; the first ones take longer steps. */
const STEP = 0.01;
const FIRST_STEP = 0.25;
/** Where nothing is learned yet: prompts part anywhere inside a block. */
const UNKNOWN = 0.5;
const MAX_MODELS = 256;
const DEFAULT_BLOCK_TOKENS = 16;

interface Tail {
  ratio: number;
  answers: number;
}

/**
 * Where inside a prefix block prompts part from what is cached: the engine's hit lies above the last whole block that matched by a part of the next one. That part is learned per
 * model, as a running median of what engines report.
 *
 * An engine counts whole blocks of its own, so a report of T tokens stands for a match of T up to T + `blockTokens`: half an engine block is added to it.
 */
export class TailEstimate {
  private readonly tails = new Map<string, Tail>();

  /** Tokens by which a prompt's cached prefix is expected to exceed its last whole matching block; at most `tokensPerBlock`. */
  expect(model: string | undefined, tokensPerBlock: number): number {
    return (this.tails.get(model ?? '')?.ratio ?? UNKNOWN) * tokensPerBlock;
  }

  /**
   * The engine reported `reportedTokens` cached where whole blocks matched up to `tokensAtDepth`. What is not within a block and an engine block of it tells of a view that
   * was wrong, and nothing of the part: it is left out, as is a prompt of which nothing matched.
   */
  learn(model: string | undefined, reportedTokens: number, tokensAtDepth: number, tokensPerBlock: number, blockTokens = DEFAULT_BLOCK_TOKENS): void {
    const beyond = reportedTokens - tokensAtDepth;
    if (tokensAtDepth <= 0 || reportedTokens <= 0 || beyond <= -blockTokens || beyond > tokensPerBlock + blockTokens) return;
    const key = model ?? '';
    let tail = this.tails.get(key);
    if (!tail) {
      if (this.tails.size >= MAX_MODELS) return;
      tail = { ratio: UNKNOWN, answers: 0 };
      this.tails.set(key, tail);
    }
    tail.answers += 1;
    const seen = Math.min(1, Math.max(0, (beyond + blockTokens / 2) / tokensPerBlock));
    const step = Math.max(STEP, FIRST_STEP / tail.answers);
    // A step towards each answer, however far off it is, ends at the median.
    tail.ratio += Math.sign(seen - tail.ratio) * Math.min(step, Math.abs(seen - tail.ratio));
  }
}
