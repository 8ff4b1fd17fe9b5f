import { readGauges, type VllmGauges } from '../../agent/door/collectors/vllm-gauges.ts';

/** Model that every server of the rig answers to. */
export const MODEL = 'tiny';

/** What a real vLLM always tells. */
export interface ServerFigures extends VllmGauges {
  running: number;
  waiting: number;
  generationTokens: number;
}

/** What the server says of itself now. */
export async function scrape(url: string): Promise<ServerFigures> {
  const answer = await fetch(`${url}/metrics`);
  const figures = readGauges(await answer.text());
  const { running, waiting, generationTokens } = figures;
  if (running === undefined || waiting === undefined || generationTokens === undefined) {
    throw new Error(`${url}/metrics lacks what every vLLM tells`);
  }
  return { ...figures, running, waiting, generationTokens };
}

export function isIdle({ running, waiting }: VllmGauges): boolean {
  return running === 0 && waiting === 0;
}
