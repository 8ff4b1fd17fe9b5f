import { type Rng, seededRng } from '../../shared/env.ts';
import { LodestarError } from '../../shared/errors.ts';
import type { TraceRow } from './trace-format.ts';

/** Traces of this name need no file: `synthetic:shared-prompts`. */
export const SYNTHETIC_PREFIX = 'synthetic:';

type Generator = (rng: Rng, durationMs: number) => TraceRow[];
/** Every kind of workload that can be made up; a new one is a line here. */
const GENERATORS: Record<string, Generator> = { 'shared-prompts': sharedPrompts, agents };

const BLOCK_TOKENS = 16;
const MAX_DURATION_MS = 3_600_000;

const SYSTEM_PROMPTS = 40;
const SYSTEM_TOKENS = [2000, 4000] as const;
const SUFFIX_TOKENS = [100, 800] as const;
const SHARED_GAP_MS = 100;

const AGENT_KINDS = 4;
const AGENT_SYSTEM_TOKENS = [1000, 2000] as const;
const TASK_TOKENS = [100, 1000] as const;
const TURNS = [5, 20] as const;
const MEAN_TOOL_TOKENS = 300;
const MEAN_THINK_MS = [2000, 10_000] as const;
const SESSION_GAP_MS = 1250;
/** How long an answer token takes, as far as the next turn's time depends on it. */
const ANSWER_MS_PER_TOKEN = 25;
/** Sessions begin this long before the trace, so that it does not begin with first turns only. */
const RUN_IN_MS = 240_000;

const MEAN_OUTPUT_TOKENS = 150;
const OUTPUT_SIGMA = 0.8;
const TOOL_SIGMA = 1;
const MAX_DRAWN_TOKENS = 4000;

/**
 * A made-up trace by its full name, seeded, of `durationMs` at its own nominal rate (about 10 requests/s for both
 * kinds); lengths unscaled, arrivals from 0. Throws TRACE_INVALID for an unknown kind or more than an hour.
 */
export function synthesize(name: string, seed: number, durationMs: number): TraceRow[] {
  const generator = Object.hasOwn(GENERATORS, name.slice(SYNTHETIC_PREFIX.length))
    ? GENERATORS[name.slice(SYNTHETIC_PREFIX.length)]
    : undefined;
  if (!generator) {
    const known = Object.keys(GENERATORS).map((kind) => SYNTHETIC_PREFIX + kind);
    throw new LodestarError('TRACE_INVALID', `there is no trace ${name}; made-up ones are ${known.join(', ')}`);
  }
  if (durationMs > MAX_DURATION_MS)
    throw new LodestarError(
      'TRACE_INVALID',
      `${name} is made up for at most ${MAX_DURATION_MS / 1000} s, not ${durationMs / 1000}: shorten start and duration`,
    );
  return generator(seededRng(seed), durationMs);
}

/**
 * Applications that each put their own long system prompt before a question: 40 prompts of 2,000-4,000 tokens, chosen
 * by Zipf's law (exponent 1), a suffix of 100-800 tokens of its own, Poisson arrivals.
 */
function sharedPrompts(rng: Rng, durationMs: number): TraceRow[] {
  const newIds = idSource();
  const systems = Array.from({ length: SYSTEM_PROMPTS }, () => newIds(between(rng, SYSTEM_TOKENS)));
  const weights = systems.map((_, rank) => 1 / (rank + 1));
  const rows: TraceRow[] = [];
  for (let atMs = exponential(rng, SHARED_GAP_MS); atMs < durationMs; atMs += exponential(rng, SHARED_GAP_MS)) {
    const app = weighted(rng, weights);
    const system = systems[app]!;
    const suffixTokens = between(rng, SUFFIX_TOKENS);
    rows.push({
      arrivalMs: atMs,
      inputTokens: system.length * BLOCK_TOKENS + suffixTokens,
      outputTokens: lognormal(rng, MEAN_OUTPUT_TOKENS, OUTPUT_SIGMA),
      hashIds: [...system, ...newIds(suffixTokens)],
      blockTokens: BLOCK_TOKENS,
      client: `app${app}`,
    });
  }
  return rows;
}

/**
 * Agents at work: sessions of 5-20 turns begin as a Poisson process; a turn's prompt is the one before, its answer and
 * a tool's output (300 tokens on average, heavy-tailed), sent when that answer would be done and an exponential think
 * time has passed (mean 2-10 s, by session). Four kinds of agent with a system prompt each.
 */
function agents(rng: Rng, durationMs: number): TraceRow[] {
  const newIds = idSource();
  const systems = Array.from({ length: AGENT_KINDS }, () => newIds(between(rng, AGENT_SYSTEM_TOKENS)));
  const rows: TraceRow[] = [];
  for (let startMs = -RUN_IN_MS; startMs < durationMs; startMs += exponential(rng, SESSION_GAP_MS)) {
    const kind = Math.floor(rng() * AGENT_KINDS);
    // Full blocks of the conversation so far; what is in the last, partial one changes with every turn.
    const blocks = [...systems[kind]!];
    let tokens = blocks.length * BLOCK_TOKENS + between(rng, TASK_TOKENS);
    const thinkMs = between(rng, MEAN_THINK_MS);
    let atMs = startMs;
    for (let turns = between(rng, TURNS); turns > 0 && atMs < durationMs; turns--) {
      const outputTokens = lognormal(rng, MEAN_OUTPUT_TOKENS, OUTPUT_SIGMA);
      blocks.push(...newIds((Math.floor(tokens / BLOCK_TOKENS) - blocks.length) * BLOCK_TOKENS));
      const hashIds = [...blocks, ...newIds(tokens % BLOCK_TOKENS)];
      if (atMs >= 0)
        rows.push({
          arrivalMs: atMs,
          inputTokens: tokens,
          outputTokens,
          hashIds,
          blockTokens: BLOCK_TOKENS,
          client: `agent${kind}`,
        });
      tokens += outputTokens + lognormal(rng, MEAN_TOOL_TOKENS, TOOL_SIGMA);
      atMs += outputTokens * ANSWER_MS_PER_TOKEN + exponential(rng, thinkMs);
    }
  }
  return rows;
}

/** Gives out ids of blocks that no other prompt has, as many as hold this many tokens. */
function idSource(): (tokens: number) => number[] {
  let next = 0;
  return (tokens) => Array.from({ length: Math.ceil(tokens / BLOCK_TOKENS) }, () => next++);
}

function between(rng: Rng, [low, high]: readonly [number, number]): number {
  return low + Math.floor(rng() * (high - low + 1));
}

function exponential(rng: Rng, mean: number): number {
  return -mean * Math.log(1 - rng());
}

/**
 * Whole tokens, at least one, of a lognormal law with this mean; `sigma` is the standard deviation of the logarithm.
 */
function lognormal(rng: Rng, mean: number, sigma: number): number {
  const gauss = Math.sqrt(-2 * Math.log(1 - rng())) * Math.cos(2 * Math.PI * rng());
  return Math.min(MAX_DRAWN_TOKENS, Math.max(1, Math.round(mean * Math.exp(sigma * gauss - (sigma * sigma) / 2))));
}

function weighted(rng: Rng, weights: readonly number[]): number {
  let left = rng() * weights.reduce((sum, weight) => sum + weight, 0);
  for (const [index, weight] of weights.entries()) {
    left -= weight;
    if (left < 0) return index;
  }
  return weights.length - 1;
}
