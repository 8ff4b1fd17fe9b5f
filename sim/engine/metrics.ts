import { Histogram } from './histogram.ts';
import type { EngineRequest } from './request.ts';

const TTFT_S = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
];
const ITL_S = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80];
const REQUEST_S = [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680];
const ITERATION_TOKENS = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384];

/** What the clients of one HTTP request asked for; vLLM histograms it at the end of the request. */
export interface AskedFor {
  n: number;
  maxTokens: number | undefined;
}

/**
 * The counters and histograms behind vLLM's `/metrics`, observed when vLLM observes them: prompt tokens at the first
 * token, `request_*` only at a normal end, nothing at an abort. Durations in seconds, as exposed.
 */
export class EngineMetrics {
  promptTokens = 0;
  cachedPromptTokens = 0;
  generationTokens = 0;
  readonly success = { stop: 0, length: 0 };
  readonly ttft = new Histogram(TTFT_S);
  readonly itl = new Histogram(ITL_S);
  readonly tpot = new Histogram(ITL_S);
  readonly e2e = new Histogram(REQUEST_S);
  readonly queueTime = new Histogram(REQUEST_S);
  readonly inferenceTime = new Histogram(REQUEST_S);
  readonly prefillTime = new Histogram(REQUEST_S);
  readonly decodeTime = new Histogram(REQUEST_S);
  readonly iterationTokens = new Histogram(ITERATION_TOKENS);
  readonly requestPromptTokens: Histogram;
  readonly requestGenerationTokens: Histogram;
  readonly requestMaxGenerationTokens: Histogram;
  readonly requestParamsN = new Histogram([1, 2, 5, 10, 20]);
  readonly requestParamsMaxTokens: Histogram;
  readonly requestPrefillKvComputed: Histogram;

  constructor(maxModelLen: number) {
    const tokens = oneTwoFive(maxModelLen);
    this.requestPromptTokens = new Histogram(tokens);
    this.requestGenerationTokens = new Histogram(tokens);
    this.requestMaxGenerationTokens = new Histogram(tokens);
    this.requestParamsMaxTokens = new Histogram(tokens);
    this.requestPrefillKvComputed = new Histogram(tokens);
  }

  /** A token of `request`, produced at `nowMs`; its first one if `firstTokenMs` is not set yet. */
  onToken(request: EngineRequest, nowMs: number): void {
    this.generationTokens++;
    if (request.firstTokenMs >= 0) {
      this.itl.observe((nowMs - request.lastTokenMs) / 1000);
      return;
    }
    this.promptTokens += request.promptLength;
    this.cachedPromptTokens += request.hitTokens;
    this.ttft.observe((nowMs - request.arrivedMs) / 1000);
  }

  /** The normal end of `request`. */
  onFinish(request: EngineRequest, nowMs: number): void {
    this.success[request.finishReason === 'stop' ? 'stop' : 'length']++;
    const decodeS = (nowMs - request.firstTokenMs) / 1000;
    this.e2e.observe((nowMs - request.arrivedMs) / 1000);
    this.queueTime.observe((request.scheduledMs - request.queuedMs) / 1000);
    this.prefillTime.observe((request.firstTokenMs - request.scheduledMs) / 1000);
    this.decodeTime.observe(decodeS);
    this.inferenceTime.observe((nowMs - request.scheduledMs) / 1000);
    if (request.outputCount > 1) this.tpot.observe(decodeS / (request.outputCount - 1));
    this.requestPromptTokens.observe(request.promptLength);
    this.requestGenerationTokens.observe(request.outputCount);
    this.requestMaxGenerationTokens.observe(request.outputCount);
    this.requestPrefillKvComputed.observe(request.promptLength - request.hitTokens);
  }

  /** The parameters of an engine request, at its normal end. */
  onParams(asked: AskedFor): void {
    this.requestParamsN.observe(asked.n);
    if (asked.maxTokens !== undefined) this.requestParamsMaxTokens.observe(asked.maxTokens);
  }
}

/** 1, 2, 5, 10, 20, 50, … up to `max`. */
function oneTwoFive(max: number): number[] {
  const bounds: number[] = [];
  for (let decade = 1; decade <= max; decade *= 10) {
    for (const mantissa of [1, 2, 5]) if (mantissa * decade <= max) bounds.push(mantissa * decade);
  }
  return bounds;
}
