import { readGauges, type VllmGauges } from '../../agent/door/collectors/vllm-gauges.ts';

/** Model that every server of the rig answers to. */
export const MODEL = 'tiny';

/** What the server says of itself now. */
export async function scrape(url: string): Promise<VllmGauges> {
  const answer = await fetch(`${url}/metrics`);
  return readGauges(await answer.text());
}

export function isIdle({ running, waiting }: VllmGauges): boolean {
  return running === 0 && waiting === 0;
}
