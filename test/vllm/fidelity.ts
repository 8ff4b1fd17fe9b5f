import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Comparison, compare, isMet, line } from './compare.ts';
import { type EngineTotals, engineTotals, since } from './engine-side.ts';
import { fitFrontEnd, type Measured, readMeasured } from './measured.ts';
import { replay } from './replay.ts';
import { loadOptions, rigFolder, rigInstalled, rigScripts, VllmServer } from './server.ts';
import { simulate, type Simulated } from './simulate.ts';
import { fidelityLoads, type Load, loneRequests } from './workload.ts';

/**
 * `npm run bench:fidelity [load …] [--keep FILE]`: one real vLLM and the simulated engine, the same requests, one load
 * after the other; fails if a figure is missed. What is measured on vLLM is kept in FILE, and taken from there if it is
 * there already: after a change of the engine nothing need be measured again.
 */
async function main(names: readonly string[], file: string | undefined): Promise<boolean> {
  const kept = file === undefined ? [] : readMeasured(file);
  const loads = chooseLoads(names);
  if (loads.some((load) => !find(kept, load)) && !rigInstalled()) {
    console.log(
      `skipped: no vLLM rig in ${rigFolder}. Install one with\n  bash ${join(rigScripts, 'install.sh')} FOLDER\nand name it in LODESTAR_VLLM_RIG.`,
    );
    return true;
  }
  let ok = true;
  for (const load of loads) {
    let measured = find(kept, load);
    if (!measured) {
      measured = await measure(load);
      kept.push(measured);
      if (file !== undefined) writeFileSync(file, JSON.stringify(kept));
    }
    if (!(await report(load, measured))) ok = false;
  }
  return ok;
}

function chooseLoads(names: readonly string[]): Load[] {
  const loads = fidelityLoads();
  const unknown = names.filter((name) => !loads.some((load) => load.name === name));
  if (unknown.length > 0)
    throw new Error(`unknown load ${unknown.join(', ')}; there are ${loads.map((load) => load.name).join(', ')}`);
  return names.length === 0 ? loads : loads.filter((load) => names.includes(load.name));
}

function find(kept: readonly Measured[], load: Load): Measured | undefined {
  return kept.find((one) => one.load === load.name);
}

async function measure(load: Load): Promise<Measured> {
  const server = await VllmServer.start(loadOptions(load));
  try {
    const lone = await replay(server.url, loneRequests(load).requests);
    await server.resetPrefixCache();
    const before = await engineTotals(server.url);
    const { seen, maxLateMs } = await replay(server.url, load.requests);
    const engine = since(before, await engineTotals(server.url));
    const { stepMs, lostMs } = server.steps();
    return { load: load.name, lone: lone.seen, seen, engine, lostRatio: lostMs / stepMs, maxLateMs };
  } finally {
    await server.stop();
  }
}

/** Prints the table of one load; whether all promised figures are met. */
async function report(load: Load, { lone, seen, engine, lostRatio, maxLateMs }: Measured): Promise<boolean> {
  const frontEndMs = await fitFrontEnd(load, lone);
  const simulated = await simulate(load, frontEndMs);
  const comparisons = compare(seen, simulated.seen);
  console.log(
    `\n${load.name}: ${load.requests.length} requests, ${load.gpu.key}, ${load.blocks} KV blocks, front-end delay ${frontEndMs.toFixed(1)} ms`,
  );
  console.log(
    `  the machine: steps started late ${(100 * lostRatio).toFixed(2)} % of their time, requests sent at most ${maxLateMs.toFixed(1)} ms late`,
  );
  console.log(
    `  ${''.padEnd(28)} ${'vLLM'.padStart(10)} ${'simulated'.padStart(10)} ${''.padEnd(2)} ${'differs'.padStart(8)}`,
  );
  for (const comparison of [...comparisons, ...insideEngine(engine, simulated)]) console.log(line(comparison));
  return comparisons.every(isMet);
}

/**
 * Inside the engine core, where neither the API server nor the machine's other work plays a part. No promise: they
 * explain the others.
 */
function insideEngine(engine: EngineTotals, simulated: Simulated): Comparison[] {
  const { seen, preemptions } = simulated;
  const decodeMs = seen.reduce((sum, one) => sum + one.e2eMs - one.ttftMs, 0) / seen.length;
  return [
    {
      name: 'engine: first to last token',
      unit: 'ms',
      real: engine.decodeMs / engine.requests,
      simulated: decodeMs,
      allowed: undefined,
    },
    { name: 'engine: preemptions', unit: '', real: engine.preemptions, simulated: preemptions, allowed: undefined },
  ];
}

const { values, positionals } = parseArgs({ allowPositionals: true, options: { keep: { type: 'string' } } });
process.exitCode = (await main(positionals, values.keep)) ? 0 : 1;
