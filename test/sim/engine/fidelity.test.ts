import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageRoot } from '../../../shared/package-root.ts';
import { compare, isMet, line } from '../../vllm/compare.ts';
import { fitFrontEnd, type Measured, readMeasured } from '../../vllm/measured.ts';
import { simulate } from '../../vllm/simulate.ts';
import { fidelityLoads } from '../../vllm/workload.ts';

/** Measured on vLLM 0.29.0; `npm run bench:fidelity -- --keep FILE` writes such a file. */
const measured = readMeasured(join(packageRoot, 'test/fixtures/vllm-fidelity.json'));

describe('the engine against a real vLLM', () => {
  it.each(fidelityLoads().map((load) => [load.name, load] as const))(
    '%s: TTFT, E2E and hits of the same requests',
    async (name, load) => {
      const real = measured.find((one) => one.load === name) as Measured;
      const simulated = await simulate(load, await fitFrontEnd(load, real.lone));
      expect(
        compare(real.seen, simulated.seen)
          .filter((one) => !isMet(one))
          .map(line),
      ).toEqual([]);
      expect(simulated.preemptions).toBe(real.engine.preemptions);
      // On a quiet machine the rules agree to the token; a rule that differs shows here before it reaches a bound.
      expect(simulated.seen.map((one) => one.cachedTokens)).toEqual(real.seen.map((one) => one.cachedTokens));
    },
  );
});
