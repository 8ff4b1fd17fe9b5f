import { decode, encode } from '../../shared/codec.ts';
import type { InstanceReport } from '../../shared/instance.ts';
import {
  NAME_BOUNDS,
  narrowReport,
  type NoteFault,
  readReportUpdates,
  reportBytes,
  type ReportUpdate,
} from '../../shared/report.ts';

/** Node refuses header lines beyond 16 KiB in sum; a report with its `seen` list stays below this. */
const MAX_HEADER_CHARS = 12_288;
/** Largest body of reports that is read. */
export const MAX_REPORT_BYTES = 8 * 1024 * 1024;
const MAX_REPORTS = 256;
const ignore: NoteFault = () => undefined;

/**
 * A report as the text of a header, without its list of models where that does not fit; undefined if it is too large
 * for one all the same.
 */
export function encodeReport(report: InstanceReport): string | undefined {
  return asHeader(report) ?? asHeader({ ...report, models: null });
}

/** Reports as a body: the lists of models of the first as far as there is room, the others without. */
export function encodeReports(reports: readonly InstanceReport[]): Buffer {
  let bytes = 0;
  const list = reports.map((report): ReportUpdate => {
    const bounded = narrowReport(report, NAME_BOUNDS);
    bytes += reportBytes(bounded);
    return bytes <= MAX_REPORT_BYTES ? bounded : { ...bounded, models: null };
  });
  return encode(list);
}

/** Reports out of a header's text; none if it is not valid: a bad report must not fail the answer that carries it. */
export function decodeReport(text: string, note: NoteFault = ignore): ReportUpdate[] {
  return openReports(Buffer.from(text, 'base64'), note);
}

/** Reports out of an encoded body, those that fit; `note` is told of the others. */
export function openReports(bytes: Uint8Array, note: NoteFault = ignore): ReportUpdate[] {
  let list: unknown;
  try {
    list = decode(bytes, MAX_REPORT_BYTES);
  } catch {
    list = undefined;
  }
  if (Array.isArray(list)) return readReportUpdates(list.slice(0, MAX_REPORTS) as unknown[], note);
  note({ instance: undefined, problem: 'the reports: are no list in MessagePack' });
  return [];
}

function asHeader(report: ReportUpdate): string | undefined {
  // A list that cannot fit need not be encoded to see that: base64 makes four characters of three bytes.
  if (report.models !== null && report.models.length > MAX_HEADER_CHARS / 2) return undefined;
  const text = encode([report]).toString('base64');
  return text.length <= MAX_HEADER_CHARS ? text : undefined;
}
