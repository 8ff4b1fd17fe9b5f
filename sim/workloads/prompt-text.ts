import { seededRng } from '../../shared/env.ts';
import type { PlannedRequest } from './load-generator.ts';
import { BLOCK_TOKENS } from './mooncake.ts';
import type { TraceRequest } from './trace-format.ts';

/** Words of three letters: with the space before, four bytes and one token in common tokenizers. */
const WORDS = (
  'the and for are but not you all any can had her was one our out day get has him his how man new now old see two way who boy did its let put say she too use ' +
  'dad mom air arm art ask bad bag bed big bit box bus buy car cat cow cry cup cut dog dry ear eat egg end eye far few fly fun gas'
).split(' ');

/**
 * The prompt of a trace request: each hash id becomes its own block of words, so requests that share ids share exactly
 * that much text. A block of 512 tokens becomes 512 · lengthScale words (at least one); the last block is cut to the
 * request's length. Depends on ids and prompt length only.
 */
export function promptText(request: Pick<TraceRequest, 'hashIds' | 'inputTokens'>, lengthScale: number): string {
  const blockWords = Math.max(1, Math.round(BLOCK_TOKENS * lengthScale));
  let left = request.inputTokens;
  let text = '';
  for (const id of request.hashIds) {
    if (left <= 0) break;
    text += blockText(id, Math.min(left, blockWords));
    left -= blockWords;
  }
  return text;
}

function blockText(id: number, words: number): string {
  const rng = seededRng(Math.imul(id + 1, 0x9e3779b1));
  let text = '';
  for (let at = 0; at < words; at++) text += ` ${WORDS[Math.floor(rng() * WORDS.length)]}`;
  return text;
}

/** What the load generator sends for trace requests: their text, made when sent, and their answer length. */
export function planRequests(requests: readonly TraceRequest[], lengthScale: number): PlannedRequest[] {
  return requests.map((request) => ({
    arrivalMs: request.arrivalMs,
    maxTokens: request.outputTokens,
    prompt: () => promptText(request, lengthScale),
  }));
}
