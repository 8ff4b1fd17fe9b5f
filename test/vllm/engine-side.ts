import { request } from 'undici';

/** vLLM's own totals since its start; times in ms, taken inside the engine core. */
export interface EngineTotals {
  requests: number;
  /** from the first token to the last */
  decodeMs: number;
  preemptions: number;
}

/** Reads the totals from `/metrics`. */
export async function engineTotals(url: string): Promise<EngineTotals> {
  const { body } = await request(`${url}/metrics`);
  const page = await body.text();
  return {
    requests: sumOf(page, 'vllm:request_decode_time_seconds_count'),
    decodeMs: 1000 * sumOf(page, 'vllm:request_decode_time_seconds_sum'),
    preemptions: sumOf(page, 'vllm:num_preemptions_total'),
  };
}

/** What was added between two readings. */
export function since(before: EngineTotals, after: EngineTotals): EngineTotals {
  return {
    requests: after.requests - before.requests,
    decodeMs: after.decodeMs - before.decodeMs,
    preemptions: after.preemptions - before.preemptions,
  };
}

function sumOf(page: string, name: string): number {
  let sum = 0;
  for (const line of page.split('\n')) {
    if (line.startsWith(`${name}{`) || line.startsWith(`${name} `))
      sum += Number(line.slice(line.lastIndexOf(' ') + 1));
  }
  return sum;
}
