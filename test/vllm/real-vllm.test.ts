import { afterAll, beforeAll, describe } from 'vitest';
import { RealFleet } from './real-fleet.ts';
import { clientTests } from './suites/clients.ts';
import { collectorTests } from './suites/collectors.ts';
import { failureTests } from './suites/failures.ts';
import { faultTests } from './suites/faults.ts';
import { fidelityTests } from './suites/fidelity.ts';
import { surfaceTests } from './suites/surface.ts';

/**
 * Agents and a brain before real vLLM servers. They wait on conditions in real time, since a real vLLM knows no other,
 * and assert nothing about speed. One file, so that all tests share the two servers, which take half a minute to start.
 */
describe('real vLLM', () => {
  let fleet: RealFleet | undefined;
  const running = (): RealFleet => fleet as RealFleet;
  beforeAll(async () => {
    fleet = await RealFleet.start();
  });
  afterAll(() => fleet?.stop());

  collectorTests(running);
  surfaceTests(running);
  clientTests(running);
  fidelityTests(running);
  faultTests(running);
  failureTests(running);
});
