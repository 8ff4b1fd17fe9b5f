/**
 * Step-time law of one instance: how long one scheduler step of its engine lasts, in milliseconds.
 *
 *   stepMs = c0 + c1·max(0, P − max(0, t0 − D)) + c2·Σ P_i·(ctx_i + P_i/2) + c3·D + (c4 + c5 if P > 0)·Σ dctx_j
 *
 * P prefill tokens computed in the step, P_i those of request i over ctx_i tokens already in its cache, D decoding
 * sequences with contexts dctx_j. The form is that of the vidur and Splitwise line of engine models, with the two bends
 * that GPUs show: a few prefill tokens ride along for free while reading the weights bounds the step, and decode
 * attention is dearer beside a prefill. The coefficients of an instance are fitted online by its door.
 */
export interface StepLaw {
  /** ms: weights, launch, sampling */
  c0: number;
  /** ms per prefill token */
  c1: number;
  /** ms per query-key pair of prefill */
  c2: number;
  /** ms per decoding sequence */
  c3: number;
  /** ms per token of decoding context */
  c4: number;
  /** the same in addition, in a step that also prefills */
  c5: number;
  /** tokens of a step, decodes included, that cost nothing beyond c0 */
  t0: number;
}

/** What an instance's law is believed to be, and how sure its door is. */
export interface LawState extends StepLaw {
  /** ms a request spends outside steps before its first token: the engine's HTTP front end and tokeniser */
  frontEndMs: number;
  /** step observations behind the fit, after forgetting; 0 = the prior alone */
  samples: number;
  /** median absolute residual of the fit, ms */
  residualMs: number;
}

/**
 * Law of a GPU nobody has seen: between an A30 and an A100 on an 8B model in 16 bit. It is only the start of the fit.
 */
export const GENERIC_LAW: LawState = {
  c0: 18,
  c1: 0.1,
  c2: 1e-5,
  c3: 0.05,
  c4: 1.5e-4,
  c5: 0,
  t0: 0,
  frontEndMs: 8,
  samples: 0,
  residualMs: 0,
};

/** Milliseconds of a step without prefill: `decoding` sequences with `contextTokens` in sum. */
export function decodeStepMs(law: StepLaw, decoding: number, contextTokens: number): number {
  return law.c0 + law.c3 * decoding + law.c4 * contextTokens;
}

/** The same of a step that also prefills, without the prefill's own compute. */
export function prefillBaseMs(law: StepLaw, decoding: number, contextTokens: number): number {
  return decodeStepMs(law, decoding, contextTokens) + law.c5 * contextTokens;
}

/** Of `tokens` prefilled over `steps` steps beside `decoding` sequences: those that cost time. */
export function billedTokens(law: Pick<StepLaw, 't0'>, tokens: number, steps: number, decoding: number): number {
  return Math.max(0, tokens - steps * Math.max(0, law.t0 - decoding));
}

/**
 * Milliseconds of compute that prefilling `tokens` over `contextTokens` already cached adds to a step with `decoding`
 * sequences.
 */
export function prefillWorkMs(law: StepLaw, tokens: number, contextTokens: number, decoding: number): number {
  return law.c1 * billedTokens(law, tokens, 1, decoding) + law.c2 * tokens * (contextTokens + tokens / 2);
}

/**
 * What a law predicts, ms: a step of a small and of a large decode batch, and the first token of a short and of a long
 * prompt over a cached prefix.
 */
export function typicalTimesMs(law: LawState): number[] {
  const firstToken = (tokens: number, cached: number): number =>
    law.frontEndMs + decodeStepMs(law, 0, 0) + prefillWorkMs(law, tokens, cached, 0);
  return [decodeStepMs(law, 4, 4_000), decodeStepMs(law, 64, 64_000), firstToken(512, 0), firstToken(4096, 4096)];
}

/**
 * No model on any GPU is this many times faster or slower than the generic law: such a law is a broken fit or a lie.
 */
const FACTOR_MAX = 100;

/** False for a law that no engine can have, though its numbers are finite. */
export function isPossibleLaw(law: LawState): boolean {
  const generic = typicalTimesMs(GENERIC_LAW);
  return typicalTimesMs(law).every(
    (ms, i) => ms <= FACTOR_MAX * (generic[i] as number) && ms >= (generic[i] as number) / FACTOR_MAX,
  );
}
