import type { DoorInstance } from '../../../agent/door/door-instance.ts';
import type { LedgerRequest } from '../../../agent/door/ledger.ts';

/** Why a request's cached tokens were not told to within a block. */
export type Reason = 'sibling in flight' | 'evicted while waiting' | 'tokens not known exactly' | 'rest';
export const REASONS: readonly Reason[] = [
  'sibling in flight',
  'evicted while waiting',
  'tokens not known exactly',
  'rest',
];

/** One request: what the door's view said at dispatch, and what vLLM found. */
export interface DoorRow {
  /** path and query of the request, which names it */
  path: string;
  promptTokens: number;
  cachedTokens: number;
  doorHitTokens: number;
  reason: Reason;
}

interface Opened {
  /** at its dispatch it did not fit into the engine, or the prompts of others stood before it */
  waited: boolean;
  /** requests that had no token yet */
  siblings: LedgerRequest[];
}

/** Listens at a door's ledger to every request that passes, in the order of their ends. */
export class DoorRecord {
  rows: DoorRow[] = [];
  private readonly opened = new Map<LedgerRequest, Opened>();

  constructor(door: DoorInstance) {
    const { ledger } = door;
    const open = ledger.open.bind(ledger);
    const close = ledger.close.bind(ledger);
    ledger.open = (prompt) => {
      const siblings = [...this.opened.keys()].filter((one) => one.lastTokenMs === undefined);
      const request = open(prompt);
      this.opened.set(request, { waited: request.sequence === undefined || siblings.length > 0, siblings });
      return request;
    };
    ledger.close = (request, outcome, computed) => {
      const opened = this.opened.get(request);
      this.opened.delete(request);
      if (opened && outcome?.cachedTokens !== undefined) {
        const { cachedTokens, promptTokens = request.promptTokens, source } = outcome;
        const reason = reasonOf(request, opened, cachedTokens, promptTokens);
        this.rows.push({
          path: source?.path ?? '',
          promptTokens,
          cachedTokens,
          doorHitTokens: request.hitTokens,
          reason,
        });
      }
      close(request, outcome, computed);
    };
  }
}

function reasonOf(
  { prompt, hitTokens, look, promptTokens }: LedgerRequest,
  { waited, siblings }: Opened,
  cachedTokens: number,
  realPromptTokens: number,
): Reason {
  // A prompt that was still being computed has the block that the two counts differ in.
  const block = Math.min(
    prompt.hashes.length - 1,
    Math.floor(Math.min(hitTokens, cachedTokens) / prompt.tokensPerBlock),
  );
  if (siblings.some((one) => block >= 0 && one.prompt.hashes[block] === prompt.hashes[block]))
    return 'sibling in flight';
  if (waited && cachedTokens < hitTokens) return 'evicted while waiting';
  if (promptTokens !== realPromptTokens || (look.hit !== undefined && !look.hit.exact))
    return 'tokens not known exactly';
  return 'rest';
}
