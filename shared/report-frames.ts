import type { InstanceReport } from './instance.ts';
import { MAX_REPORTS_PER_FRAME, REPORTS_FRAME_BYTES } from './protocol.ts';
import { reportBytes } from './report.ts';

/** Reports in order, divided so that each part fits in a frame; one empty part where there is none. */
export function framesOf(
  reports: readonly InstanceReport[],
  maxBytes: number = REPORTS_FRAME_BYTES,
): InstanceReport[][] {
  let part: InstanceReport[] = [];
  let bytes = 0;
  const parts = [part];
  for (const report of reports) {
    const size = reportBytes(report);
    if (part.length > 0 && (bytes + size > maxBytes || part.length >= MAX_REPORTS_PER_FRAME)) {
      part = [];
      bytes = 0;
      parts.push(part);
    }
    part.push(report);
    bytes += size;
  }
  return parts;
}
