import { Agent } from 'undici';
import { realClock } from '../../shared/env.ts';
import type { SimRequest } from '../../sim/fleet/plan.ts';
import { sendRequest } from '../../sim/workloads/load-request.ts';
import type { LoadOutcome } from '../../sim/workloads/load-result.ts';
import type { Seen } from './simulate.ts';

const TIMEOUT_MS = 120_000;

/** What a replay left behind: the clients' view, and how late the generator itself was, ms. */
export interface Replayed {
  seen: Seen[];
  maxLateMs: number;
}

/**
 * Sends each request at its time whether or not earlier ones are answered, as token ids, so that vLLM hashes the very
 * blocks of the simulation. Throws if one fails or is answered with another length.
 */
export async function replay(url: string, requests: readonly SimRequest[]): Promise<Replayed> {
  const dispatcher = new Agent({ pipelining: 1 });
  const startMs = realClock.nowMs();
  const pending: Promise<LoadOutcome>[] = [];
  let maxLateMs = 0;
  try {
    for (const request of requests) {
      const body = bodyOf(request);
      const waitMs = startMs + request.arrivalMs - realClock.nowMs();
      if (waitMs > 0) await new Promise<void>((done) => void realClock.after(waitMs, done));
      const lateMs = realClock.nowMs() - startMs - request.arrivalMs;
      maxLateMs = Math.max(maxLateMs, lateMs);
      pending.push(send(dispatcher, url, request, body, lateMs));
    }
    const outcomes = await Promise.all(pending);
    return { seen: outcomes.map((outcome, at) => toSeen(outcome, requests[at] as SimRequest)), maxLateMs };
  } finally {
    await dispatcher.destroy();
  }
}

function send(
  dispatcher: Agent,
  origin: string,
  request: SimRequest,
  body: string,
  lateMs: number,
): Promise<LoadOutcome> {
  const { index, arrivalMs } = request;
  const plan = { index, urlIndex: 0, arrivalMs, lateMs };
  const headers = { 'content-type': 'application/json' };
  return sendRequest({
    dispatcher,
    clock: realClock,
    origin,
    path: '/v1/completions',
    headers,
    body,
    timeoutMs: TIMEOUT_MS,
    plan,
  }).outcome;
}

function bodyOf({ prompt, outputTokens }: SimRequest): string {
  return JSON.stringify({
    model: 'tiny',
    prompt: Array.from(prompt),
    max_tokens: outputTokens,
    ignore_eos: true,
    stream: true,
    stream_options: { include_usage: true },
  });
}

function toSeen(outcome: LoadOutcome, request: SimRequest): Seen {
  const { kind, detail, ttftMs, e2eMs, completionTokens, cachedTokens, index } = outcome;
  if (kind !== 'ok' || ttftMs === undefined) throw new Error(`request ${index} ended as ${kind}: ${detail ?? ''}`);
  if (completionTokens !== request.outputTokens)
    throw new Error(`request ${index} was answered with ${completionTokens} tokens instead of ${request.outputTokens}`);
  return { index, ttftMs, e2eMs, cachedTokens: cachedTokens ?? 0 };
}
