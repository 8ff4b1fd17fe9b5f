import { idOf } from './tokenizer.ts';

/** One output token: its id and its text, also ready for JSON. */
export interface Word {
  id: number;
  text: string;
  json: string;
}

const NOUNS =
  'sun moon star sky rain snow wind sea lake rock hill tree leaf seed root bird fish wolf bear deer road path gate door wall roof ship sail ' +
  'mast helm map line dot arc ring disk lens beam glow fire coal iron gold salt sand clay dust time hour year day dawn dusk tide wave song drum';

const words = NOUNS.split(' ');
const plain: Word[] = words.map((word) => makeWord(` ${word}`));
const capital: Word[] = words.map((word) => makeWord(` ${word[0]!.toUpperCase()}${word.slice(1)}`));
/** Without the space, for the first token of a chat answer, which follows a special token. */
const opening: Word[] = words.map((word) => makeWord(word[0]!.toUpperCase() + word.slice(1)));
const stop: Word = makeWord('.');

const byId = new Map([...plain, ...capital, ...opening, stop].map((word) => [word.id, word]));

/** Tokens a sentence, its full stop included. */
const SENTENCE = 12;

/**
 * Id of output token `index` under `seed`: words of one token each, in sentences. Equal seeds give equal texts, and the
 * text tokenises to these ids again, so the next turn of a chat hits the cache. A negative seed is that of a chat
 * answer: its first word has no space.
 */
export function outputToken(seed: number, index: number): number {
  const place = index % SENTENCE;
  if (place === SENTENCE - 1) return stop.id;
  let mixed = Math.imul(seed ^ Math.imul(index + 1, 0x9e3779b1), 0x85ebca77);
  mixed ^= mixed >>> 13;
  const pick = (Math.imul(mixed, 0xc2b2ae3d) >>> 8) % words.length;
  if (index === 0 && seed < 0) return opening[pick]!.id;
  return (place === 0 ? capital : plain)[pick]!.id;
}

/** The word of an id that `outputToken` gave. */
export function wordOf(id: number): Word {
  return byId.get(id)!;
}

function makeWord(text: string): Word {
  return { id: idOf(text), text, json: JSON.stringify(text) };
}
