import { type HttpAnswer, send } from '../helpers/http.ts';

/** A streamed request under way. */
export interface OpenStream {
  /** what has come so far */
  readonly text: string;
  readonly ended: boolean;
  /** settles when it has ended, however */
  answer: Promise<HttpAnswer>;
  abort(): void;
}

/** Sends a request and returns at once. */
export function openStream(url: string, body: object, path = '/v1/completions'): OpenStream {
  const controller = new AbortController();
  const stream = {
    text: '',
    ended: false,
    abort: () => controller.abort(),
    answer: send(url + path, {
      body: JSON.stringify(body),
      signal: controller.signal,
      onData: (text) => {
        stream.text += text;
      },
    }).finally(() => {
      stream.ended = true;
    }),
  };
  return stream;
}
