export { runLoad, type LoadOptions, type LoadProgress, type PlannedRequest } from './load-generator.ts';
export type { LoadOutcome, LoadResult, OutcomeKind } from './load-result.ts';
export { bundledTrace, pace, readMooncake, type Trace, type TraceOptions, type TraceRequest } from './mooncake.ts';
export { quantile, summarize, type Summary } from './percentiles.ts';
export { planRequests, promptText } from './prompt-text.ts';
