import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { InvalidArgumentError, type Command } from 'commander';
import { realClock } from '../shared/env.ts';
import { errorMessage } from '../shared/errors.ts';
import { Fleet, FRONT_END_MS, INSTANCES } from './demo/fleet.ts';
import { FleetClient } from './demo/fleet-client.ts';
import { hintLines } from './demo/hints.ts';
import { runPhase, untilFleetIsUp, type PhaseResult } from './demo/phases.ts';
import { reportLines, type Report } from './demo/report.ts';
import { Screen } from './demo/screen.ts';
import { newPhase, type DemoState } from './demo/state.ts';
import { floorTtftMs, planTraffic } from './demo/traffic.ts';
import { findGpu, loadGpus } from '../sim/engine/gpus.ts';
import type { TraceRequest } from '../sim/workloads/index.ts';

const RATE = 10;
const SECONDS = 65;
/** The default of `lodestar engine`. */
const MODEL = 'emulated-llama-3.1-8b';
const FASTEST_GPU = 'A100';
const PROCESSES = 1 + 2 * INSTANCES.length;
const DEATH_NOTICE_MS = 500;
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

interface Flags {
  once?: boolean;
  rate: number;
  seconds: number;
  json?: string;
  keepLogs?: string;
}

/** A signal of the user's ended the demo. */
class Interrupted extends Error {
  readonly exitCode: number;

  constructor(signal: keyof typeof EXIT_CODES) {
    super(signal);
    this.exitCode = EXIT_CODES[signal];
  }
}

/**
 * `lodestar demo`: a whole fleet of processes on this machine, first routed by a heuristic, then by what was learned
 * meanwhile.
 */
export function addDemo(program: Command): void {
  program
    .command('demo')
    .description(
      'run a fleet of one brain, four agents and four emulated GPUs here, and compare prefix-load with learned routing',
    )
    .option('--once', 'end after the result; otherwise the fleet stays up')
    .option('--rate <n>', 'mean requests a second', positive, RATE)
    .option('--seconds <n>', 'length of each of the two phases', positive, SECONDS)
    .option('--json <file>', 'write the figures there as JSON')
    .option('--keep-logs <folder>', 'keep the logs of all processes there')
    .action(async (flags: Flags) => {
      process.exitCode = await demo(flags);
    });
}

/** Runs the demo and returns its exit status. When it settles, none of its processes is left. */
export async function demo(flags: Flags): Promise<number> {
  const stop = new AbortController();
  const folder = mkdtempSync(join(tmpdir(), 'lodestar-demo-'));
  const logs = resolve(flags.keepLogs ?? join(folder, 'logs'));
  const state = startState();
  const fleet = new Fleet({
    folder,
    logs,
    env: process.env,
    onDeath: (error) => stop.abort(error),
    onReady: () => {
      state.ready += 1;
    },
  });
  const releaseSignals = onSignals((signal) =>
    stop.signal.aborted ? fleet.kill() : stop.abort(new Interrupted(signal)),
  );
  const stopped = new Promise<never>((_, reject) =>
    stop.signal.addEventListener('abort', () => reject(stop.signal.reason as Error)),
  );
  try {
    mkdirSync(logs, { recursive: true });
    await Promise.race([stopped, show(flags, fleet, state, stop.signal)]);
    if (!flags.once) await stayUp(fleet, stopped);
    return 0;
  } catch (error) {
    if (error instanceof Interrupted) return error.exitCode;
    // A request to a process that has just died can fail before its end is known here: the end is the better message.
    const cause = await Promise.race([stopped.catch((reason: unknown) => reason), sleep(DEATH_NOTICE_MS, error)]);
    process.stderr.write(`lodestar demo: ${errorMessage(cause)}\n`);
    return 1;
  } finally {
    stop.abort();
    await fleet.stop();
    releaseSignals();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The demo proper: start → two phases → result. */
async function show(flags: Flags, fleet: Fleet, state: DemoState, signal: AbortSignal): Promise<void> {
  const requests = planTraffic(flags.rate, flags.seconds);
  state.phases = [newPhase('prefix-load', requests.length), newPhase('learned', requests.length)];
  const startedMs = realClock.nowMs();
  const screen = new Screen(process.stdout, () => ({ ...state, elapsedMs: realClock.nowMs() - startedMs }));
  signal.addEventListener('abort', () => screen.close());
  try {
    await fleet.start();
    const deps = {
      client: new FleetClient(fleet),
      state,
      requests,
      model: MODEL,
      processes: fleet.processes(),
      clock: realClock,
      signal,
    };
    await untilFleetIsUp(deps);
    const phases: [PhaseResult, PhaseResult] = [await runPhase(deps, 0), await runPhase(deps, 1)];
    state.step = 'done';
    screen.close();
    const report = makeReport(phases, requests, state);
    process.stdout.write(`\n${reportLines(report).join('\n')}\n`);
    if (flags.json !== undefined)
      writeFileSync(flags.json, `${JSON.stringify({ flags, ...report, requests: requests.length }, null, 2)}\n`);
  } finally {
    screen.close();
  }
}

function makeReport(phases: [PhaseResult, PhaseResult], requests: readonly TraceRequest[], state: DemoState): Report {
  const floorMs = floorTtftMs(requests, findGpu(loadGpus(), FASTEST_GPU), FRONT_END_MS);
  const nodes = INSTANCES.map(({ id, gpu }) => ({ instance: id, gpu }));
  return { phases, nodes, floorTtftMs: floorMs, fastestGpu: FASTEST_GPU, trustedAfterMs: state.trustedAfterMs };
}

/** Ctrl-C is how a user leaves a fleet that stays up: no failure. */
async function stayUp(fleet: Fleet, stopped: Promise<never>): Promise<void> {
  process.stdout.write(
    `\n${hintLines({ nodes: fleet.nodes, brainUrl: fleet.brainUrl, token: fleet.token, model: MODEL }).join('\n')}\n`,
  );
  await stopped.catch((reason: unknown) => {
    if (!(reason instanceof Interrupted)) throw reason;
  });
}

function startState(): DemoState {
  return {
    elapsedMs: 0,
    step: 'starting',
    ready: 0,
    processes: PROCESSES,
    phases: [newPhase('prefix-load', 0), newPhase('learned', 0)],
    current: undefined,
    instances: INSTANCES,
    brain: undefined,
    trustedAfterMs: undefined,
  };
}

function onSignals(act: (signal: keyof typeof EXIT_CODES) => void): () => void {
  const names = Object.keys(EXIT_CODES) as (keyof typeof EXIT_CODES)[];
  for (const name of names) process.on(name, act);
  return () => {
    for (const name of names) process.off(name, act);
  };
}

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0 && Number.isFinite(value))) throw new InvalidArgumentError('It must be a number above 0.');
  return value;
}
