import type { RoutingTable } from '../../shared/table.ts';
import type { ClientRequest } from './read.ts';

const DEFAULT_BYTES_PER_TOKEN = 4;
const RATE = 0.05;
/** Shorter prompts say little: the chat template's own tokens outweigh their text. */
const MIN_TOKENS = 64;
const MAX_MODELS = 256;

/**
 * Bytes of canonical prompt text per token, learned per model from the engines' own counts, started from the fleet's
 * table.
 */
export class TokenEstimate {
  private readonly learned = new Map<string, number>();
  private fleet: RoutingTable['bytesPerToken'] = {};

  applyTable(table: RoutingTable): void {
    this.fleet = table.bytesPerToken;
  }

  bytesPerToken(model: string | undefined): number {
    const key = model ?? '';
    // The name is the client's: 'constructor' must not find what every object inherits.
    const fleet = Object.hasOwn(this.fleet, key) ? this.fleet[key] : undefined;
    return this.learned.get(key) ?? fleet ?? DEFAULT_BYTES_PER_TOKEN;
  }

  /** Estimated prompt tokens of a request. */
  promptTokens(request: ClientRequest): number {
    if (request.promptIsTokens) return request.promptBytes / 4;
    return Math.round(request.promptBytes / this.bytesPerToken(request.model));
  }

  /** The engine counted `promptTokens` for `bytes` of prompt text. */
  learn(model: string | undefined, bytes: number, promptTokens: number): void {
    if (promptTokens < MIN_TOKENS || bytes <= 0) return;
    const key = model ?? '';
    const known = this.learned.get(key);
    if (known === undefined && this.learned.size >= MAX_MODELS) return;
    const ratio = bytes / promptTokens;
    this.learned.set(key, known === undefined ? ratio : known + RATE * (ratio - known));
  }
}
