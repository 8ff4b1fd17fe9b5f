import { addedTtftFigures } from './added-ttft.ts';
import { blockFlowFigures } from './block-flow.ts';
import { cacheIndexFigures } from './cache-index.ts';
import { decisionFigures } from './decision.ts';
import { type Figure, printFigures } from './figure.ts';
import { hostileBodyFigures } from './hostile-bodies.ts';
import { kvFlowFigures } from './kv-flow.ts';
import { coldStartFigures, mixedFleetFigures } from './virtual-fleet.ts';

/** `npm run bench [name …]`: runs the named benchmarks, or all. */
const benches: Record<string, { title: string; run: () => Figure[] | Promise<Figure[]> }> = {
  decision: { title: 'Decision: snapshot, features, prediction, choice (one core)', run: decisionFigures },
  'cache-index': {
    title: 'Index of all caches: look-ups, changes, memory (2 million blocks, one core)',
    run: cacheIndexFigures,
  },
  'block-flow': {
    title: 'Block changes from one door through the brain to 16 entries (one process)',
    run: blockFlowFigures,
  },
  'kv-flow': {
    title: "KV events of one engine into its door's view (publisher in another process)",
    run: kvFlowFigures,
  },
  'added-ttft': { title: 'TTFT that the request path adds', run: addedTtftFigures },
  'hostile-bodies': { title: 'Streams beside hostile bodies of 32 MB, over a hop', run: hostileBodyFigures },
  'cold-start': { title: 'Learning from cold (virtual time)', run: coldStartFigures },
  'mixed-fleet': { title: "Policies on the demo's fleet and load (virtual time)", run: mixedFleetFigures },
};

const names = process.argv.slice(2);
const unknown = names.filter((name) => !(name in benches));
if (unknown.length > 0) {
  console.error(`unknown benchmark ${unknown.join(', ')}; there are ${Object.keys(benches).join(', ')}`);
  process.exit(1);
}
for (const name of names.length > 0 ? names : Object.keys(benches)) {
  const bench = benches[name];
  if (bench) printFigures(bench.title, await bench.run());
}
