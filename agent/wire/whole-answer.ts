import type { IncomingHttpHeaders } from 'node:http';
import { readUsage, type Usage } from './sse.ts';

/** Up to this size an answer is kept and parsed. Of a longer one only its end is kept, where vLLM writes the usage. */
const MAX_PARSED_BYTES = 256 * 1024;
const TAIL_BYTES = 16 * 1024;
const USAGE = '"usage":{';

/** Who reads an answer: its headers say, not the request. One in a coding of its own (`unread`) passes untouched. */
export type AnswerForm = 'events' | 'whole' | 'unread';

export function formOf(headers: IncomingHttpHeaders): AnswerForm {
  const coding = headers['content-encoding'];
  if (coding !== undefined && coding !== 'identity') return 'unread';
  const type = String(headers['content-type'] ?? '').toLowerCase();
  if (type.startsWith('text/event-stream')) return 'events';
  return type.startsWith('application/json') ? 'whole' : 'unread';
}

/** An answer that is no stream, as it goes by: kept so far as its token counts need it. */
export class WholeAnswer {
  private chunks: Buffer[] = [];
  private bytes = 0;
  private cut = false;

  push(chunk: Buffer): void {
    this.chunks.push(chunk);
    this.bytes += chunk.length;
    if (this.bytes <= MAX_PARSED_BYTES) return;
    // Copied: a view would keep the memory of its whole packet.
    const tail = Buffer.from(Buffer.concat(this.chunks).subarray(-TAIL_BYTES));
    this.chunks = [tail];
    this.bytes = tail.length;
    this.cut = true;
  }

  /** The whole body; undefined where it was too long to keep. */
  body(): Buffer | undefined {
    return this.cut ? undefined : Buffer.concat(this.chunks);
  }

  usage(): Usage | undefined {
    const text = Buffer.concat(this.chunks).toString('utf8');
    if (!this.cut) return readUsage(text);
    const at = text.lastIndexOf(USAGE);
    const end = at < 0 ? -1 : endOfObject(text, at + USAGE.length - 1);
    return end < 0 ? undefined : readUsage(`{${text.slice(at, end)}}`);
  }
}

/**
 * Index after the brace that closes the object at `open`; −1 if there is none. Token counts hold no strings with
 * braces.
 */
function endOfObject(text: string, open: number): number {
  let depth = 0;
  for (let at = open; at < text.length; at++) {
    if (text[at] === '{') depth += 1;
    else if (text[at] === '}' && --depth === 0) return at + 1;
  }
  return -1;
}
