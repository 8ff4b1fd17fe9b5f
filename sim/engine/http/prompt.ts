import { tokenize } from '../tokenizer.ts';
import type { ChatMessages, CompletionBody } from './bodies.ts';

const BEGIN = 0;
const HEADER_START = 1;
const HEADER_END = 2;
const END_OF_TURN = 3;

/** Prompts of a completions body as token ids: one for a string or an id list, several for a batch. */
export function completionPrompts(prompt: CompletionBody['prompt']): Int32Array[] {
  if (typeof prompt === 'string') return [textPrompt(prompt)];
  if (typeof prompt[0] === 'number') return [Int32Array.from(prompt as number[])];
  return (prompt as (string | number[])[]).map((one) =>
    typeof one === 'string' ? textPrompt(one) : Int32Array.from(one),
  );
}

/**
 * Token ids of a chat, by a template like Llama 3's. Each content is tokenised on its own between special tokens, so a
 * chat that goes on keeps every token of its earlier turns, answers included.
 */
export function chatPrompt(messages: ChatMessages): Int32Array {
  const ids: number[] = [BEGIN];
  for (const { role, content } of messages) {
    ids.push(HEADER_START, ...tokenize(role), HEADER_END);
    const text = typeof content === 'string' ? content : (content ?? []).map((part) => part.text).join('\n');
    for (const id of tokenize(text)) ids.push(id);
    ids.push(END_OF_TURN);
  }
  ids.push(HEADER_START, ...tokenize('assistant'), HEADER_END);
  return Int32Array.from(ids);
}

function textPrompt(text: string): Int32Array {
  return Int32Array.from([BEGIN].concat(tokenize(text)));
}
