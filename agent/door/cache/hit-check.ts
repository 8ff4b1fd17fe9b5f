import { BLOCK_BYTES } from '../../request/fingerprint.ts';
import type { PrefixTree } from './prefix-tree.ts';
import type { CacheLook, CacheOutcome, PrefixNode, Sequence } from './records.ts';

/** Tokens that a chat template may add to a prompt. Besides these, no tokenizer makes more than one token of a byte. */
const TEMPLATE_TOKENS = 65_536;
/** No tokenizer makes one token of more bytes. */
const MAX_BYTES_PER_TOKEN = 64;
/** Weights of the newest answer in the moving means. */
const RATE = 0.02;
const TAIL_RATE = 0.02;
const ANSWER_RATE = 0.1;
/** Share of an answer's tokens that next turns must find cached for answers to count as cached. */
const MIN_ANSWERS_KEPT = 0.8;
/** Below it, one answer in this many still counts, to see whether that has changed. */
const ANSWER_SAMPLED = 16;

/** How good the predictions were, over recent answers that reported cached tokens. */
export interface HitFigures {
  /** cached over all prompt tokens */
  hitRatio: number;
  /** share of predictions that were right within one engine block */
  accuracyRatio: number;
  /** answers that were compared */
  checked: number;
}

/**
 * Compares predicted with reported cached tokens, and learns from the difference where prompts part and whether answers
 * stay cached.
 */
export class HitCheck {
  private readonly tree: PrefixTree;
  /** share of answers that next turns found cached: an answer may have other tokens when it comes back as a prompt */
  private answersKept = 1;
  private checked = 0;
  private accuracy = 0;
  private hitSum = 0;
  private promptSum = 0;

  constructor(tree: PrefixTree) {
    this.tree = tree;
  }

  /** The engine is another: the figures start anew. What was learned of its model stays. */
  reset(): void {
    this.checked = 0;
    this.accuracy = 0;
    this.hitSum = 0;
    this.promptSum = 0;
  }

  figures(): HitFigures {
    const hitRatio = this.promptSum > 0 ? this.hitSum / this.promptSum : 0;
    return { hitRatio, accuracyRatio: this.accuracy, checked: this.checked };
  }

  /** Whether the answer of the request that finishes as number `finished` counts as cached. */
  believesAnswer(finished: number): boolean {
    return this.answersKept >= MIN_ANSWERS_KEPT || finished % ANSWER_SAMPLED === 0;
  }

  /**
   * Compares the prediction of a request's dispatch with what the engine found. True: it was off by more than an engine
   * block, and the exact tokens of the prompt would help.
   */
  compare(
    { prompt, promptTokens, nodes }: Sequence,
    outcome: CacheOutcome,
    { hit, hitTokens }: CacheLook,
    blockTokens: number,
  ): boolean {
    const { cachedTokens } = outcome;
    if (cachedTokens === undefined) return false;
    const isRight = Math.abs(cachedTokens - hitTokens) <= blockTokens;
    this.checked += 1;
    const rate = Math.max(RATE, 1 / this.checked);
    this.accuracy += rate * ((isRight ? 1 : 0) - this.accuracy);
    this.hitSum += rate * (cachedTokens - this.hitSum);
    this.promptSum += rate * ((outcome.promptTokens ?? promptTokens) - this.promptSum);
    if (hit) this.learnKept(hit, cachedTokens, blockTokens);
    if (hit && !prompt.exactTokens) this.learnTail(hit, cachedTokens, prompt.tokensPerBlock, blockTokens);
    return !isRight && nodes.some((node) => !node.exact);
  }

  /** Learns from a prompt that ends in an earlier answer how much of that answer was still cached. */
  private learnKept({ tokens, shadow }: PrefixNode, cachedTokens: number, blockTokens: number): void {
    if (shadow.promptTokens === undefined) return;
    const answerTokens = tokens - shadow.promptTokens;
    if (!(answerTokens > 2 * blockTokens)) return;
    const kept = (cachedTokens + blockTokens - shadow.promptTokens) / answerTokens;
    this.answersKept += ANSWER_RATE * (Math.min(1, Math.max(0, kept)) - this.answersKept);
  }

  /**
   * Prompts part inside a block, so the engine finds a little more than the last whole one. The tail found behind this
   * block is expected there again, since prompts that share a beginning mostly part at the same place.
   */
  private learnTail(hit: PrefixNode, cachedTokens: number, tokensPerBlock: number, blockTokens: number): void {
    // The engine counts whole blocks: the count stands for the middle of the next one.
    const tail = cachedTokens + blockTokens / 2 - hit.tokens;
    // A larger difference is not one of place: the engine has cached something else.
    if (tail < -2 * blockTokens || tail > Math.max(tokensPerBlock, BLOCK_BYTES) + blockTokens) return;
    this.tree.setTail(hit, tail);
    this.tree.defaultTail += TAIL_RATE * (Math.max(0, tail) - this.tree.defaultTail);
  }
}

/**
 * True if the engine counted fewer tokens than the prompt's text can have: it saw another text
 * (`truncate_prompt_tokens`).
 */
export function isTruncated(sequence: Sequence, { promptTokens }: CacheOutcome): boolean {
  return promptTokens !== undefined && promptTokens * MAX_BYTES_PER_TOKEN < sequence.prompt.text.length;
}

/**
 * What of an engine's report can be true: counts that a cache of `cacheTokens` tokens cannot hold are left out, and an
 * answer that is too long for its token count.
 */
export function plausible({ prompt, tokens }: Sequence, told: CacheOutcome, cacheTokens: number): CacheOutcome {
  const { promptTokens, outputTokens, cachedTokens, answer, source } = told;
  const isPossible =
    (promptTokens ?? 0) <= Math.min(cacheTokens, prompt.text.length + TEMPLATE_TOKENS) &&
    (outputTokens ?? 0) <= cacheTokens &&
    (cachedTokens ?? 0) <= (promptTokens ?? cacheTokens);
  if (!isPossible) {
    return { promptTokens: undefined, outputTokens: undefined, cachedTokens: undefined, answer: undefined, source };
  }
  const answerTokens = Math.max(outputTokens ?? 0, tokens - prompt.promptTokens);
  return { ...told, answer: answer && answer.length <= MAX_BYTES_PER_TOKEN * answerTokens ? answer : undefined };
}
