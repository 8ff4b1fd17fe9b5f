import { setTimeout as sleep } from 'node:timers/promises';
import { send } from '../../helpers/http.ts';
import { MODEL } from '../scrape.ts';

/** One request and what became of it. Times: `performance.now()`, ms. */
export interface Shot {
  readonly url: string;
  readonly tokens: number;
  readonly stream: boolean;
  readonly sentMs: number;
  firstByteMs: number | undefined;
  /** undefined: it still runs */
  endMs: number | undefined;
  status: number;
  cut: boolean;
  body: string;
  instance: string | undefined;
  /** settles when it is over */
  over: Promise<void>;
}

export interface ShotOptions {
  tokens: number;
  stream?: boolean;
  headers?: Record<string, string>;
  path?: string;
  /** more fields of the body, or others than those of a completion */
  body?: object;
}

let serial = 0;

/** Sends a completion whose prompt no other shares, of exactly so many tokens, and returns at once. */
export function shoot(
  url: string,
  { tokens, stream = false, headers = {}, path = '/v1/completions', body = {} }: ShotOptions,
): Shot {
  const number = (serial += 1);
  const prompt = Array.from({ length: 24 }, (_, at) => 4 + ((number * 31 + at * (number % 97) + at) % 250));
  const shot: Shot = {
    url,
    tokens,
    stream,
    sentMs: performance.now(),
    firstByteMs: undefined,
    endMs: undefined,
    status: 0,
    cut: true,
    body: '',
    instance: undefined,
    over: Promise.resolve(),
  };
  const text = JSON.stringify({ model: MODEL, prompt, max_tokens: tokens, ignore_eos: true, stream, ...body });
  const onData = (): void => {
    shot.firstByteMs ??= performance.now();
  };
  shot.over = send(url + path, { body: text, headers, onData }).then((answer) => {
    shot.endMs = performance.now();
    const named = answer.headers['x-lodestar-instance'];
    Object.assign(shot, {
      status: answer.status,
      cut: answer.cut,
      body: answer.body,
      instance: typeof named === 'string' ? named : undefined,
    });
  });
  return shot;
}

/** Sends at a steady rate for so long; `make` sends the one with that number. */
export async function shootFor(
  ms: number,
  perSecond: number,
  make: (index: number) => Shot,
  into: Shot[] = [],
): Promise<Shot[]> {
  const startMs = performance.now();
  for (let i = 0; ; i++) {
    const dueMs = startMs + (i * 1000) / perSecond;
    if (dueMs - startMs >= ms) return into;
    await sleep(Math.max(0, dueMs - performance.now()));
    into.push(make(i));
  }
}

/** Waits until all are over. */
export async function allOver(shots: readonly Shot[]): Promise<void> {
  await Promise.all(shots.map((one) => one.over));
}

/** It got its whole answer: all of its tokens, and no error. */
export function isWhole(shot: Shot): boolean {
  if (shot.status !== 200 || shot.cut || shot.body.includes('"error"')) return false;
  return shot.stream
    ? shot.body.includes('"finish_reason":"length"') && shot.body.endsWith('data: [DONE]\n\n')
    : shot.body.includes(`"completion_tokens":${shot.tokens},`);
}

/** A stream that ends, not cut, with an error event and its end mark. */
export function endsWithError({ status, cut, body }: Shot): boolean {
  return status === 200 && !cut && /data: \{"error":\{[^\n]*\n\ndata: \[DONE\]\n\n$/.test(body);
}

export function tookMs({ sentMs, endMs }: Shot): number {
  return (endMs ?? Infinity) - sentMs;
}

/** What those that failed got, each kind once, for the eye. */
export function failures(shots: readonly Shot[]): string {
  const kinds = new Map<string, number>();
  for (const one of shots) {
    if (isWhole(one)) continue;
    const kind = `${one.status}${one.cut ? ' cut' : ''} ${one.body.slice(-160).replaceAll(/\s+/g, ' ')}`;
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  return [...kinds].map(([kind, count]) => `${count} × ${kind}`).join('; ');
}
