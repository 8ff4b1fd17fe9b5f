import type { Rng } from '../../shared/env.ts';
import { jsonLines, numberOf, textOf } from './trace-fields.ts';
import type { TraceFormat, TraceRow } from './trace-format.ts';

/** English text in common tokenizers. */
const BYTES_PER_TOKEN = 4;
const BLOCK_TOKENS = 16;
/** Sessions begin this far apart on average: with runs of 7 s to some minutes, half a dozen at once. */
const MEAN_SESSION_GAP_MS = 10_000;
/**
 * A longer pause within a session is a wait for a person or a slow tool; a few such sessions would be all that is left
 * at the end.
 */
const MAX_PAUSE_MS = 10_000;

interface Call {
  atMs: number;
  row: TraceRow;
}

/**
 * LMCache's agent traces: JSON lines of `timestamp` (µs), `input` and `output` (text) and `session_id`, one line a
 * model call. Text counts a token for each four bytes of UTF-8; a prompt's blocks of 16 tokens are named by what they
 * hold and the block before, so a prompt that extends another shares its full blocks. Sessions were recorded one after
 * the other, days apart: here they begin at random, in random order, as a Poisson process, and keep the times between
 * their own calls up to 10 s. The folder that holds a session is its client. Calls without a prompt are left out.
 */
export const lmcache: TraceFormat = {
  recognises: (line) => line.startsWith('{') && line.includes('"input"') && line.includes('"session_id"'),
  read: (files, rng) => {
    const nameBlocks = blockNames();
    const sessions = new Map<string, Call[]>();
    for (const file of files) {
      const client = file.folder;
      for (const line of jsonLines(file)) {
        const atMs = numberOf(line, 'timestamp', 0) / 1000;
        const prompt = Buffer.from(textOf(line, 'input'));
        const outputTokens = tokensOf(Buffer.byteLength(textOf(line, 'output')));
        const session = `${client ?? ''}/${textOf(line, 'session_id')}`;
        if (prompt.length === 0) continue;
        const row = {
          arrivalMs: 0,
          inputTokens: tokensOf(prompt.length),
          outputTokens,
          hashIds: nameBlocks(prompt),
          blockTokens: BLOCK_TOKENS,
          client,
        };
        const calls = sessions.get(session);
        if (calls) calls.push({ atMs, row });
        else sessions.set(session, [{ atMs, row }]);
      }
    }
    return spread([...sessions.values()], rng);
  },
};

function tokensOf(bytes: number): number {
  return Math.ceil(bytes / BYTES_PER_TOKEN);
}

/**
 * Numbers blocks in order of appearance, by their bytes and the number of the block before: exact, where a hash could
 * collide.
 */
function blockNames(): (prompt: Buffer) => number[] {
  const known = new Map<string, number>();
  const size = BLOCK_TOKENS * BYTES_PER_TOKEN;
  return (prompt) => {
    const ids: number[] = [];
    let parent = -1;
    for (let at = 0; at < prompt.length; at += size) {
      const key = `${parent}:${prompt.toString('latin1', at, at + size)}`;
      let id = known.get(key);
      if (id === undefined) known.set(key, (id = known.size));
      ids.push(id);
      parent = id;
    }
    return ids;
  };
}

function spread(sessions: Call[][], rng: Rng): TraceRow[] {
  const rows: TraceRow[] = [];
  let startMs = 0;
  for (let left = sessions.length; left > 0; left--) {
    const drawn = Math.floor(rng() * left);
    // Lines are not in order of time.
    const calls = sessions[drawn]!.toSorted((a, b) => a.atMs - b.atMs);
    sessions[drawn] = sessions[left - 1]!;
    let arrivalMs = startMs;
    for (const [at, { atMs, row }] of calls.entries()) {
      arrivalMs += Math.min(MAX_PAUSE_MS, atMs - (calls[at - 1]?.atMs ?? atMs));
      rows.push({ ...row, arrivalMs });
    }
    startMs -= MEAN_SESSION_GAP_MS * Math.log(1 - rng());
  }
  return rows;
}
