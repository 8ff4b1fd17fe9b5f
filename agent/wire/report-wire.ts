import { z } from 'zod';
import { decode, encode } from '../../shared/codec.ts';
import type { InstanceReport } from '../../shared/instance.ts';
import { reportSchema } from '../../shared/protocol.ts';

/** Node refuses header lines beyond 16 KiB in sum; a report with its `seen` list stays below this. */
const MAX_HEADER_CHARS = 12_288;
/** Largest body of reports that is read. */
export const MAX_REPORT_BYTES = 1024 * 1024;
const reports = z.array(reportSchema).max(256);

/** Reports as the text of a header; undefined if they are too large for one. */
export function encodeReport(list: readonly InstanceReport[]): string | undefined {
  const text = encode(list).toString('base64');
  return text.length <= MAX_HEADER_CHARS ? text : undefined;
}

/** Reports out of a header's text; none if it is not valid: a bad report must not fail the answer that carries it. */
export function decodeReport(text: string): InstanceReport[] {
  return openReports(Buffer.from(text, 'base64'));
}

/** Reports out of an encoded body; none if it is not valid. */
export function openReports(bytes: Uint8Array): InstanceReport[] {
  try {
    const parsed = reports.safeParse(decode(bytes, MAX_REPORT_BYTES));
    return parsed.success ? parsed.data : [];
  } catch {
    return [];
  }
}
