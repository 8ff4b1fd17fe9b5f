import { START_OUTPUT_TOKENS } from '../../shared/predictor/prior.ts';
import type { RoutingTable } from '../../shared/table.ts';
import type { ClientRequest } from '../request/read.ts';

/** Answers after which an old one counts for 1/e. */
const MEMORY = 300;
/** Answers that the model's mean counts for beside a client's own. */
const SHRINKAGE = 20;
/** Clients remembered; the one unheard of for longest leaves. */
const MAX_CLIENTS = 4096;

interface Known {
  answers: number;
  tokens: number;
}

/**
 * Expected answer length in tokens: the mean of the answers that this entry has seen for the same model, client and
 * power of two of `max_tokens`, shrunk towards the model's mean in the fleet (from the routing table). What a request
 * will generate cannot be known before; who asks is the best hint.
 */
export class OutputEstimate {
  private fleet: RoutingTable['meanOutputTokens'] = { fleet: START_OUTPUT_TOKENS, models: {} };
  // In order of last use.
  private readonly clients = new Map<string, Known>();

  applyTable(table: RoutingTable): void {
    this.fleet = table.meanOutputTokens;
  }

  /** At least 1, at most the client's own bound. */
  expect(request: ClientRequest): number {
    const mean = this.modelMean(request.model);
    const known = this.clients.get(keyOf(request));
    const tokens = known ? (known.tokens + SHRINKAGE * mean) / (known.answers + SHRINKAGE) : mean;
    return Math.max(1, request.maxTokens > 0 ? Math.min(request.maxTokens, tokens) : tokens);
  }

  /** An answer has ended by itself with `outputTokens` a sequence. */
  learn(request: ClientRequest, outputTokens: number): void {
    if (outputTokens <= 0) return;
    const key = keyOf(request);
    const known = this.clients.get(key) ?? { answers: 0, tokens: 0 };
    const keep = 1 - 1 / MEMORY;
    known.answers = known.answers * keep + 1;
    known.tokens = known.tokens * keep + outputTokens;
    this.clients.delete(key);
    this.clients.set(key, known);
    if (this.clients.size > MAX_CLIENTS) this.clients.delete(this.clients.keys().next().value as string);
  }

  private modelMean(model: string | undefined): number {
    // The name is the client's: 'constructor' must not find what every object inherits.
    const own = model !== undefined && Object.hasOwn(this.fleet.models, model) ? this.fleet.models[model] : undefined;
    return own ?? this.fleet.fleet;
  }
}

function keyOf({ model, client, maxTokens }: ClientRequest): string {
  return `${model ?? ''} ${client} ${maxTokens > 0 ? Math.round(Math.log2(maxTokens)) : 0}`;
}
