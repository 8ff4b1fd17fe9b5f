import type { Rng } from '../../shared/env.ts';
import type { TraceFile } from './trace-source.ts';

/** One request of a trace, times from the start of the selected span. */
export interface TraceRequest {
  arrivalMs: number;
  /** Prompt length after scaling. */
  inputTokens: number;
  /** Length of the answer: only for `max_tokens`, never for a router to see. */
  outputTokens: number;
  /**
   * Ids of the prompt's blocks, chained over the prefix: the same id means the same tokens after the same beginning.
   * The last one stands for the rest.
   */
  hashIds: readonly number[];
  /**
   * Scaled tokens in one block; not always a whole number. Block b covers tokens round(b · blockTokens) to round((b +
   * 1) · blockTokens).
   */
  blockTokens: number;
  /** Who sent it, where the trace says. */
  client?: string | undefined;
}

/** A request as the origin has it: lengths unscaled, times of the file. */
export type TraceRow = TraceRequest;

export interface Trace {
  requests: TraceRequest[];
  /** Requests left out because their prompts were too long. */
  droppedTooLong: number;
}

/** One kind of trace file. */
export interface TraceFormat {
  /** Whether a file that begins with this line is of this kind. */
  recognises: (firstLine: string) => boolean;
  /** All requests, in any order. `rng` draws what the origin leaves open. TRACE_INVALID with file, line and field. */
  read: (files: readonly TraceFile[], rng: Rng) => TraceRow[];
}
