import { START_OUTPUT_TOKENS } from '../shared/predictor/prior.ts';
import type { Sample } from '../shared/sample.ts';

/** Outcomes after which an old one counts for 1/e. */
const MEMORY = 500;
const MODELS_MAX = 1024;
/**
 * An answer counts as at most this many times the mean so far: one absurd count must not outweigh hundreds of others.
 */
const MEAN_MULTIPLE_MAX = 10;

interface ModelSums {
  outcomes: number;
  outputTokens: number;
  promptBytes: number;
  promptTokens: number;
}

export interface ModelFigures {
  meanOutputTokens: { fleet: number; models: Record<string, number> };
  bytesPerToken: Record<string, number>;
}

/**
 * Mean answer length, and bytes of prompt text per token, of each model: sums over finished requests, the older ones
 * fading.
 */
export class ModelStats {
  private readonly models = new Map<string, ModelSums>();
  private readonly fleet = newSums();

  note(sample: Sample): void {
    if (sample.outcome.status !== 'ok') return;
    let sums = this.models.get(sample.model);
    if (!sums) {
      if (this.models.size >= MODELS_MAX) return;
      sums = newSums();
      this.models.set(sample.model, sums);
    }
    add(sums, sample);
    add(this.fleet, sample);
  }

  figures(): ModelFigures {
    const models: Record<string, number> = {};
    const bytesPerToken: Record<string, number> = {};
    for (const [model, sums] of this.models) {
      models[model] = meanOutput(sums);
      if (sums.promptTokens > 0 && sums.promptBytes > 0) bytesPerToken[model] = sums.promptBytes / sums.promptTokens;
    }
    return { meanOutputTokens: { fleet: meanOutput(this.fleet), models }, bytesPerToken };
  }
}

function newSums(): ModelSums {
  return { outcomes: 0, outputTokens: 0, promptBytes: 0, promptTokens: 0 };
}

function add(sums: ModelSums, sample: Sample): void {
  const keep = 1 - 1 / MEMORY;
  const { promptTokens } = sample.outcome;
  const outputTokens = Math.min(sample.outcome.outputTokens, MEAN_MULTIPLE_MAX * meanOutput(sums));
  sums.outcomes = sums.outcomes * keep + 1;
  sums.outputTokens = sums.outputTokens * keep + outputTokens;
  if (promptTokens === null || promptTokens === 0 || sample.promptBytes === 0) return;
  sums.promptBytes = sums.promptBytes * keep + sample.promptBytes;
  sums.promptTokens = sums.promptTokens * keep + promptTokens;
}

function meanOutput(sums: ModelSums): number {
  return sums.outcomes > 0 ? Math.max(1, sums.outputTokens / sums.outcomes) : START_OUTPUT_TOKENS;
}
