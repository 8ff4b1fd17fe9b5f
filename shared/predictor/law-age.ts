import { FEATURES } from '../features.ts';

/** A law that has seen this many steps no longer changes much by seeing more (window of the step clock's fit: 600). */
const SETTLED_SAMPLES = 400;
/** Share of its instance's present steps, at most of a settled law, that the law behind a prediction must have seen. */
const SHARE_MIN = 0.5;
const LAW_SAMPLES = FEATURES.indexOf('lawSamples');

/** Steps that the law behind a feature row had seen. */
export function lawSamplesOf(row: Float32Array): number {
  return Math.expm1(row[LAW_SAMPLES] as number);
}

/**
 * True if a prediction rests on a law that has since seen more than twice as many steps. While an instance is new its
 * law is refitted every second, and what became of requests that an earlier one was asked about says nothing of the one
 * in force.
 */
export function isOutdatedLaw(samplesThen: number, samplesNow: number): boolean {
  return samplesThen < SHARE_MIN * Math.min(SETTLED_SAMPLES, samplesNow);
}
