import { MODEL } from '../scrape.ts';

/** What stands before the servers. */
export interface Router {
  /** where clients send, in turn */
  urls: readonly string[];
  /** Empties the caches of the servers through the router, where it has a view of them that must follow. */
  resetCaches?(): Promise<void>;
  stop(): Promise<void>;
}

/** True if a request through the router is answered. */
export async function serves(url: string): Promise<boolean> {
  try {
    const body = JSON.stringify({ model: MODEL, prompt: 'hello', max_tokens: 1 });
    const answer = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    });
    await answer.text();
    return answer.status === 200;
  } catch {
    return false;
  }
}
