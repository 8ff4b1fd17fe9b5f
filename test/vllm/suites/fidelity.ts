import { expect, it } from 'vitest';
import { simRequest } from '../../../sim/fleet/plan.ts';
import { compare, line } from '../compare.ts';
import { engineTotals, since } from '../engine-side.ts';
import { FAR_LOAD, type RealFleet } from '../real-fleet.ts';
import { replay } from '../replay.ts';
import { simulate } from '../simulate.ts';
import type { Load } from '../workload.ts';

/**
 * Of the load, the part whose sessions are well under way: long prompts, of which most is cached if it has not been
 * evicted.
 */
const [FIRST, REQUESTS] = [150, 100];
/**
 * Its prefill takes three steps, a second in all: long enough for the others to arrive meanwhile, also on a busy
 * machine.
 */
const PLUG_TOKENS = 6000;
const FIRST_MS = 100;
const GAP_MS = 5;
/** What vLLM spends on a request outside its engine, about. */
const FRONT_END_MS = 7;

/**
 * A queue of agent sessions behind one long prompt. All of them wait before the first is admitted, so that what follows
 * (admissions, preemptions, evictions, hits) depends on the scheduler's rules alone and not on the moment at which a
 * busy machine hands a request over.
 */
function burst(): Load {
  const plug = simRequest(
    0,
    0,
    Int32Array.from({ length: PLUG_TOKENS }, (_, at) => 4 + ((at * 7 + (at >> 4)) % 250)),
    1,
    '',
  );
  const others = FAR_LOAD.requests
    .slice(FIRST, FIRST + REQUESTS)
    .map(({ prompt, outputTokens }, at) => simRequest(at + 1, FIRST_MS + at * GAP_MS, prompt, outputTokens, ''));
  return { ...FAR_LOAD, name: 'burst', requests: [plug, ...others] };
}

/** The engine of `lodestar sim` decides as vLLM does: the same requests, request by request. */
export function fidelityTests(fleet: () => RealFleet): void {
  it('the simulated engine caches, evicts and preempts what vLLM does', async () => {
    const { server } = fleet().far;
    await fleet().rest();
    await server.resetPrefixCache();
    const load = burst();
    const before = await engineTotals(server.url);
    const { seen, maxLateMs } = await replay(server.url, load.requests);
    const { preemptions } = since(before, await engineTotals(server.url));
    const simulated = await simulate(load, FRONT_END_MS);
    console.info(
      [
        `fidelity: ${preemptions} preemptions, requests sent at most ${maxLateMs.toFixed(0)} ms late`,
        ...compare(seen, simulated.seen).map(line),
      ].join('\n'),
    );
    expect(simulated.seen.map((one) => one.cachedTokens)).toEqual(seen.map((one) => one.cachedTokens));
    expect(simulated.preemptions).toBe(preemptions);
    // Otherwise nothing of it was put to the test.
    expect(preemptions).toBeGreaterThan(0);
    expect(seen.reduce((sum, one) => sum + one.cachedTokens, 0)).toBeGreaterThan(0);
  });
}
