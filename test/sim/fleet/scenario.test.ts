import { describe, expect, it } from 'vitest';
import { parseCluster } from '../../../sim/fleet/cluster.ts';
import { largestRequestTokens, makeScenario } from '../../../sim/fleet/scenario.ts';
import { pair, shortTrace } from './world.ts';

describe('scenario', () => {
  it('is the same for the same arguments and another for another seed', () => {
    const [one, same, other] = [
      makeScenario(shortTrace, pair, 1),
      makeScenario(shortTrace, pair, 1),
      makeScenario(shortTrace, pair, 2),
    ];
    expect(one.requests).toHaveLength(40);
    expect(same.requests).toEqual(one.requests);
    expect(other.requests).not.toEqual(one.requests);
  });

  it('arrives at the rate given', () => {
    const { requests } = makeScenario(shortTrace, pair, 1);
    expect(requests[0]?.arrivalMs).toBe(0);
    expect(requests.at(-1)?.arrivalMs).toBeCloseTo((39 / 8) * 1000, 6);
  });

  it('leaves out what no instance can hold and what is above the limit, and counts both', () => {
    const small = parseCluster('{"instances": [{"gpu": "A30", "kvTokens": 3200}]}', 'small');
    const trace = { ...shortTrace, lengthScale: 1, maxRequests: undefined, maxPromptTokens: 4000 };
    const { requests, dropped } = makeScenario(trace, small, 1);
    expect(requests.every((one) => one.prompt.length + one.outputTokens <= 3200)).toBe(true);
    expect(dropped.heldByNone).toBeGreaterThan(0);
    expect(dropped.aboveMaxPrompt).toBeGreaterThan(0);
    const all = makeScenario({ ...trace, maxPromptTokens: undefined }, pair, 1);
    expect(requests.length + dropped.heldByNone + dropped.aboveMaxPrompt).toBe(all.requests.length);
  });

  it('says why when nothing is left', () => {
    const tiny = parseCluster('{"instances": [{"gpu": "A30", "kvTokens": 256}]}', 'tiny');
    expect(() => makeScenario({ ...shortTrace, lengthScale: 1 }, tiny, 1)).toThrow(
      /no request is left: \d+ requests need more than the 256 tokens/,
    );
    expect(() => makeScenario({ ...shortTrace, maxPromptTokens: 10 }, pair, 1)).toThrow(/prompts are above the limit/);
  });

  it('counts on instances that are there all the time', () => {
    const events =
      '[{"atS": 5, "kind": "die", "instance": 1}, {"atS": 1, "kind": "throttle", "instance": 0, "factor": 2}]';
    const cluster = parseCluster(`{"instances": [{"gpu": "A30"}, {"gpu": "A100"}], "events": ${events}}`, 'dying');
    expect(largestRequestTokens(cluster)).toBe(41_000);
    expect(largestRequestTokens(pair)).toBe(467_280);
  });
});
