import { errorMessage } from '../../shared/errors.ts';
import { type Figure, figureTable } from './faults/figure.ts';
import { FaultRig } from './faults/rig.ts';
import { cutLink, doorRestart } from './faults/scenarios/links.ts';
import { long, ownStall, poison, sdkHeaders, stopShort } from './faults/scenarios/requests.ts';
import type { Scenario } from './faults/scenarios/scenario.ts';
import { pause, stopCore, stopGroup } from './faults/scenarios/stops.ts';

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  poison,
  long,
  'stop-group': stopGroup,
  'stop-core': stopCore,
  'stop-short': stopShort,
  pause,
  'cut-link': cutLink,
  'door-restart': doorRestart,
  'own-stall': ownStall,
  'sdk-headers': sdkHeaders,
};

/**
 * `npm run bench:vllm-faults [-- NAME…]`: two real vLLM servers behind real agents, and what clients see when requests
 * are poisoned or long, when servers, agents or links stand still, and when an agent dies. Prints each figure with what
 * is promised of it; status 1 if one is missed.
 */
async function main(names: readonly string[]): Promise<void> {
  const unknown = names.filter((name) => !SCENARIOS[name]);
  if (unknown.length > 0)
    throw new Error(`no scenario ${unknown.join(', ')}; there are ${Object.keys(SCENARIOS).join(', ')}`);
  const results = new Map<string, readonly Figure[]>();
  const rig = await FaultRig.start();
  try {
    for (const name of names.length > 0 ? names : Object.keys(SCENARIOS)) {
      console.error(`${name} …`);
      const figures = await (SCENARIOS[name] as Scenario)(rig).catch((error: unknown): Figure[] => [
        { name: 'ran to its end', target: 'yes', measured: errorMessage(error), isMet: false },
      ]);
      results.set(name, figures);
      console.log(figureTable(new Map([[name, figures]])));
      await rig.rest();
    }
  } finally {
    await rig.stop();
  }
  if (results.size > 1) console.log(`\n${figureTable(results)}`);
  if ([...results.values()].flat().some((one) => !one.isMet)) process.exitCode = 1;
}

await main(process.argv.slice(2));
