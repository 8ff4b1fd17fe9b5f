import { decodeReport, encodeReport } from '../../agent/wire/report-wire.ts';
import type { HubHandlers } from '../../brain/hub.ts';
import { parseSampleBatch } from '../../brain/sample-batch.ts';
import type { Clock } from '../../shared/env.ts';
import type { InstanceReport } from '../../shared/instance.ts';
import type { ReportUpdate } from '../../shared/report.ts';
import { parseAgentMessage } from '../../shared/protocol.ts';
import type { Sample } from '../../shared/sample.ts';

/**
 * Falsifies what agents tell, to see what becomes of the fleet. Clock ms. What it returns goes through the checks of
 * the real wire.
 */
export interface Tamper {
  samples?(agent: string, samples: Sample[], nowMs: number): unknown[];
  report?(report: InstanceReport, nowMs: number): unknown;
}

/** The brain's handlers behind the falsified wire: what its parsers refuse does not arrive. */
export function tamperedHandlers(tamper: Tamper | undefined, handlers: HubHandlers, clock: Clock): HubHandlers {
  if (!tamper) return handlers;
  return {
    ...handlers,
    samples: (peer, batch) => {
      const samples = tamper.samples ? tamper.samples(peer.agent, batch.samples, clock.nowMs()) : batch.samples;
      handlers.samples(peer, parseSampleBatch({ t: 'samples', batch: batch.batch, dropped: batch.dropped, samples }));
    },
    message: (peer, message, frame) => {
      if (message.t !== 'telemetry') return handlers.message(peer, message, frame);
      const reports = message.reports.map((report) => tamper.report?.(report, clock.nowMs()) ?? report);
      const parsed = whole(() => parseAgentMessage({ ...message, reports }));
      if (parsed?.t === 'telemetry') handlers.message(peer, parsed, frame);
    },
  };
}

/** A door's report as it comes out of an answer's header at the entry; undefined if it is refused there. */
export function tamperedReport(
  tamper: Tamper | undefined,
  report: InstanceReport,
  nowMs: number,
): ReportUpdate | undefined {
  if (!tamper?.report) return report;
  const falsified = tamper.report(report, nowMs) as InstanceReport;
  return decodeReport(encodeReport(falsified) ?? '')[0];
}

/** Undefined for what the parser refuses. */
function whole<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch {
    return undefined;
  }
}
