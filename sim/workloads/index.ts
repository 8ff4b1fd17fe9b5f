export { runLoad, type LoadOptions, type LoadProgress, type PlannedRequest } from './load-generator.ts';
export type { LoadOutcome, LoadResult, OutcomeKind } from './load-result.ts';
export { quantile } from '../../shared/quantile.ts';
export { summarize, type Summary } from './percentiles.ts';
export { planRequests, promptText } from './prompt-text.ts';
export { simPrompt } from './prompts.ts';
export {
  bundledTrace,
  pace,
  readMooncake,
  readTrace,
  TRACE_FORMATS,
  type TraceFormatName,
  type TraceOptions,
} from './trace.ts';
export type { Trace, TraceRequest } from './trace-format.ts';
