import { describe, expect, test } from 'vitest';
import type { Regime } from '../../shared/sample.ts';
import { TrustGate } from '../../shared/trust.ts';

const LIMITS = { minSamples: 40, maxMedianApe: 0.35 };

/** Notes `n` outcomes of 100 ms, one a 100 ms, predicted wrong by the share `error`. */
function feed(gate: TrustGate, n: number, error: number, fromMs = 0, regime: Regime = 'idle'): number {
  for (let i = 0; i < n; i++) gate.note(100 * (1 + error), 150, 100, regime, fromMs + i * 100);
  return fromMs + n * 100;
}

describe('TrustGate', () => {
  test('trust needs enough outcomes and a small median error', () => {
    const gate = new TrustGate(LIMITS);
    let nowMs = feed(gate, 39, 0.1);
    expect(gate.verdict(nowMs)).toMatchObject({
      verdict: 'learning',
      samples: 39,
      reason: 'learning: 39 of 40 outcomes',
    });
    nowMs = feed(gate, 1, 0.1, nowMs);
    expect(gate.verdict(nowMs)).toMatchObject({ verdict: 'trusted', samples: 40, p90Coverage: 1 });
    expect(gate.verdict(nowMs).medianApe).toBeCloseTo(0.1, 6);
    const bad = new TrustGate(LIMITS);
    expect(bad.verdict(feed(bad, 100, 0.5)).verdict).toBe('learning');
    expect(bad.verdict(feed(bad, 100, 0.6, 10_000)).verdict).toBe('untrusted');
  });

  test('a few wild outcomes do not decide', () => {
    const gate = new TrustGate(LIMITS);
    const nowMs = feed(gate, 19, 50, feed(gate, 60, 0.05));
    expect(gate.verdict(nowMs).verdict).toBe('trusted');
  });

  test('trust is lost on clear drift only, before the window has turned over, and says why', () => {
    const gate = new TrustGate(LIMITS);
    let nowMs = feed(gate, 256, 0.1);
    expect(gate.verdict(nowMs).verdict).toBe('trusted');
    nowMs = feed(gate, 60, 0.45, nowMs);
    expect(gate.verdict(nowMs).verdict).toBe('trusted');
    nowMs = feed(gate, 30, 2, nowMs);
    const lost = gate.verdict(nowMs);
    expect(lost.verdict).toBe('untrusted');
    expect(lost.reason).toContain('drift');
    nowMs = feed(gate, 300, 0.1, nowMs);
    expect(gate.verdict(nowMs).verdict).toBe('trusted');
  });

  test('wild predictions take trust while the median is still good: one instance of several is astray', () => {
    const gate = new TrustGate(LIMITS);
    let nowMs = feed(gate, 100, 0.1);
    expect(gate.verdict(nowMs).verdict).toBe('trusted');
    const mix = (wild: number, n: number): void => {
      for (let i = 0; i < n; i++) nowMs = feed(gate, 1, i % 10 < wild ? -0.9 : 0.1, nowMs);
    };
    mix(1, 100);
    expect(gate.verdict(nowMs).verdict).toBe('trusted');
    mix(3, 100);
    expect(gate.verdict(nowMs)).toMatchObject({
      verdict: 'untrusted',
      reason: expect.stringContaining('off by more than 5 times'),
    });
    mix(2, 100);
    expect(gate.verdict(nowMs).verdict).toBe('untrusted');
    mix(0, 100);
    expect(gate.verdict(nowMs).verdict).toBe('trusted');
  });

  test('outcomes leave by age', () => {
    const gate = new TrustGate(LIMITS);
    const nowMs = feed(gate, 100, 0.5);
    expect(gate.verdict(nowMs + 200_000)).toMatchObject({ samples: 0, medianApe: null, p90Coverage: null });
  });

  test('a reset starts anew', () => {
    const gate = new TrustGate(LIMITS);
    const nowMs = feed(gate, 100, 0.1);
    gate.verdict(nowMs);
    gate.reset();
    expect(gate.verdict(nowMs)).toMatchObject({ verdict: 'learning', samples: 0 });
  });

  test('regimes are judged apart, and only on enough of their own', () => {
    const gate = new TrustGate(LIMITS);
    let nowMs = feed(gate, 100, 0.1);
    nowMs = feed(gate, 12, 3, nowMs, 'full');
    nowMs = feed(gate, 11, 0.1, nowMs, 'queued');
    expect(gate.verdict(nowMs).regimes).toEqual({ idle: 'trusted', full: 'untrusted', queued: 'unknown' });
  });

  test('predictions that are no numbers count as wrong, and the verdict stays a valid message', () => {
    const gate = new TrustGate(LIMITS);
    for (let i = 0; i < 60; i++) gate.note(Number.NaN, Number.NaN, 100, 'idle', i);
    expect(gate.verdict(60)).toMatchObject({ verdict: 'untrusted', medianApe: null, p90Coverage: 0 });
  });
});
