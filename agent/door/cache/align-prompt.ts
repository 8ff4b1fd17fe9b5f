import type { ProbeSource, TokenizedPrompt, TokenProbe } from './token-probe.ts';
import { Alignment, type Vocabulary } from './token-text.ts';

/** Share of a prompt's tokens that must be found in its text for its counts to be believed. */
const MIN_FOUND_SHARE = 0.8;
/** Tokens that are looked at before the event loop, which moves every stream, gets its turn. */
const TOKENS_PER_TURN = 2048;

/** How an engine's tokens lie in the text of a prompt. */
export interface AlignedPrompt {
  /** tokens before each byte of the text; NaN where that is not known */
  tokensAt: Float64Array;
  /** tokens before the end of a byte block, by its number; those that were found */
  ends: ReadonlyMap<number, number>;
}

/**
 * Learns the texts of an engine's tokens of a prompt, and finds them in the prompt's own text. Undefined: too few of
 * them are there, or `isOver` says after a turn that nobody wants to know any more.
 */
export async function alignPrompt(
  vocabulary: Vocabulary,
  text: Buffer,
  { ids, spellings }: TokenizedPrompt,
  isOver: () => boolean,
): Promise<AlignedPrompt | undefined> {
  const pieces: (Buffer | undefined)[] = [];
  for (let i = 0; i < ids.length; i++) {
    vocabulary.learn(ids[i] as number, spellings[i] as string);
    pieces.push(vocabulary.get(ids[i] as number));
    if (i % TOKENS_PER_TURN === TOKENS_PER_TURN - 1 && (await nextTurn(isOver))) return undefined;
  }
  const alignment = new Alignment(text);
  const ends = new Map<number, number>();
  for (let from = 0; from < pieces.length; from += TOKENS_PER_TURN) {
    alignment.feed(
      pieces,
      (block, tokens) => ends.set(block, tokens),
      from,
      Math.min(pieces.length, from + TOKENS_PER_TURN),
    );
    if (await nextTurn(isOver)) return undefined;
  }
  return alignment.found < MIN_FOUND_SHARE * ids.length ? undefined : { tokensAt: alignment.tokensAt(), ends };
}

/**
 * Asks an engine for the tokens of a prompt and aligns them. Undefined as alignPrompt, and where the engine was not
 * asked or has no answer.
 */
export async function askAligned(
  probe: TokenProbe,
  source: ProbeSource,
  vocabulary: Vocabulary,
  text: Buffer,
  isOver: () => boolean,
): Promise<AlignedPrompt | undefined> {
  const tokens = await probe.ask(source);
  return tokens && !isOver() ? await alignPrompt(vocabulary, text, tokens, isOver) : undefined;
}

async function nextTurn(isOver: () => boolean): Promise<boolean> {
  await new Promise((resolve) => setImmediate(resolve));
  return isOver();
}
