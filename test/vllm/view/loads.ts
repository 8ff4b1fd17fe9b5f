import { setTimeout as sleep } from 'node:timers/promises';
import { type Rng, seededRng } from '../../../shared/env.ts';
import { bundledTrace, pace, readTrace, simPrompt } from '../../../sim/workloads/index.ts';
import { MODEL } from '../scrape.ts';
import { fidelityLoads } from '../workload.ts';

/** Sends one request and settles with the text of its answer. */
export type Send = (path: string, body: object) => Promise<string>;

/** Traffic on one instance. */
export interface ViewLoad {
  name: string;
  run(send: Send): Promise<void>;
}

const SEED = 7;
const RPS = 5;
const REQUESTS = 400;
const LENGTH_SCALE = 1 / 8;
const OUTPUT_SCALE = 0.25;
const MAX_PROMPT_TOKENS = 2500;
/** Length of a load without a trace. */
const DURATION_MS = 50_000;
const CHATS = 10;
const READERS = 4;

/** With the space before it, each is one token of the rig's tokenizer (test/vllm/rig/mktiny.py). */
const WHOLE_WORDS = 'hello world this is a tiny tokenizer for router tests'.split(' ');
/** Several tokens each. */
const SPELLED_WORDS =
  'the quick brown fox jumps over lazy dogs while seventeen engineers debug {"json": [1, 2, 3]} and write code; return x + y;'.split(
    ' ',
  );

/** All loads, in the order in which they run on one server. */
export function viewLoads(): ViewLoad[] {
  return [
    { name: 'conversation', run: (send) => timed(send, conversation()) },
    { name: 'agents', run: (send) => timed(send, agents()) },
    { name: 'documents', run: (send) => documents(send, DURATION_MS) },
    { name: 'chat', run: (send) => chat(send, false) },
    { name: 'chat, own answers', run: (send) => chat(send, true) },
  ];
}

/** Readers that ask about random beginnings of four documents, words of one token and of several mixed. */
export async function documents(send: Send, durationMs: number): Promise<void> {
  const rng = seededRng(SEED);
  const texts = documentTexts(rng);
  const endMs = performance.now() + durationMs;
  const read = async (): Promise<void> => {
    while (performance.now() < endMs) {
      const text = texts[Math.floor(rng() * texts.length)] as string;
      const cut = text.slice(0, Math.floor(text.length * (0.3 + 0.7 * rng())));
      await send(
        '/v1/completions',
        completion(`${cut} ${words(rng, 20 + Math.floor(rng() * 60), 0.3)}`, 3 + Math.floor(rng() * 30)),
      );
      await sleep(rng() * 1500);
    }
  };
  await Promise.all(Array.from({ length: READERS }, read));
}

/**
 * Chats of several turns, each with all before it. `own`: with the answers that were given, which may be spelled in
 * other tokens than they were generated in.
 */
async function chat(send: Send, own: boolean): Promise<void> {
  const rng = seededRng(SEED + 1);
  const systems = documentTexts(rng);
  const endMs = performance.now() + DURATION_MS;
  const talk = async (_: unknown, user: number): Promise<void> => {
    while (performance.now() < endMs) {
      const messages = [{ role: 'system', content: systems[user % systems.length] as string }];
      const turns = 2 + Math.floor(rng() * 5);
      for (let turn = 0; turn < turns && performance.now() < endMs; turn++) {
        messages.push({ role: 'user', content: words(rng, 10 + Math.floor(rng() * 80), rng() < 0.5 ? 0.2 : 0.8) });
        const given = await send('/v1/chat/completions', {
          model: MODEL,
          messages,
          max_tokens: 5 + Math.floor(rng() * 60),
          stream: true,
          ignore_eos: true,
        });
        messages.push({ role: 'assistant', content: own ? given : words(rng, 5 + Math.floor(rng() * 60), 0.2) });
        await sleep(200 + rng() * 2500);
      }
    }
  };
  await Promise.all(Array.from({ length: CHATS }, talk));
}

interface Timed {
  arrivalMs: number;
  maxTokens: number;
  prompt: Int32Array;
}

function conversation(): Timed[] {
  const trace = readTrace(bundledTrace, {
    seed: SEED,
    lengthScale: LENGTH_SCALE,
    outputScale: OUTPUT_SCALE,
    maxPromptTokens: MAX_PROMPT_TOKENS,
  });
  return pace(trace.requests.slice(0, REQUESTS), { rate: RPS }).map((one) => ({
    arrivalMs: one.arrivalMs,
    maxTokens: one.outputTokens,
    prompt: simPrompt(one, SEED).map((token) => token >>> 3),
  }));
}

function agents(): Timed[] {
  const load = fidelityLoads().find(({ name }) => name === 'agents');
  return (load?.requests ?? []).map(({ arrivalMs, outputTokens, prompt }) => ({
    arrivalMs,
    maxTokens: outputTokens,
    prompt,
  }));
}

/** Each at its time, answered or not those before; settles when all are answered. */
async function timed(send: Send, requests: readonly Timed[]): Promise<void> {
  const startMs = performance.now();
  const pending: Promise<string>[] = [];
  for (const { arrivalMs, maxTokens, prompt } of requests) {
    await sleep(Math.max(0, startMs + arrivalMs - performance.now()));
    pending.push(send('/v1/completions', completion(textOf(prompt), maxTokens)));
  }
  await Promise.all(pending);
}

function completion(prompt: string, maxTokens: number): object {
  return { model: MODEL, prompt, max_tokens: Math.max(1, maxTokens), stream: true, ignore_eos: true };
}

/** A word of one token for each token: what two prompts share as ids, they share as text. */
function textOf(tokens: Int32Array): string {
  return Array.from(tokens, (token) => ` ${WHOLE_WORDS[token % WHOLE_WORDS.length]}`).join('');
}

function documentTexts(rng: Rng): string[] {
  return [words(rng, 60, 0.3), words(rng, 200, 0), words(rng, 150, 1), words(rng, 30, 0.5)];
}

function words(rng: Rng, count: number, spelledShare: number): string {
  const draw = (from: readonly string[]): string => from[Math.floor(rng() * from.length)] as string;
  return Array.from({ length: count }, () => draw(rng() < spelledShare ? SPELLED_WORDS : WHOLE_WORDS)).join(' ');
}
