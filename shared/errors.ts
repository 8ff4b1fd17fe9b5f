/** Every error code the project raises, with what an operator should understand by it. */
export const ERROR_CODES = {
  CONFIG_INVALID: 'a configuration value is missing, unknown or of the wrong type',
  WIRE_MALFORMED: 'a frame could not be decoded or does not fit the protocol',
  WIRE_TOO_LARGE: 'a frame exceeds the size limit',
  TABLE_CORRUPT: 'a routing table fails its checksum or shape',
  UPSTREAM_FAILED: 'the instance failed before the first byte of its answer',
  UPSTREAM_TIMEOUT: 'the instance sent no byte in time',
  TRACE_INVALID: 'a trace file has a bad line',
  LOG_INVALID: 'a recorded request log cannot be read, or holds too little to learn from',
  STORE_FAILED: 'the state folder cannot be opened or written',
  PROCESS_DIED: 'a process that the demo started ended, or did not become ready',
  PREDICTOR_BACKEND: 'no TensorFlow.js backend could be started',
  ROUND_DIVERGED: 'a training round ended in values that are not finite',
  TRAINER_STALLED: 'the training thread gave no answer or ended',
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

/** The project's error: a code for programs, a message for people, and the cause kept. */
export class LodestarError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'LodestarError';
    this.code = code;
  }
}

/** Message of anything that was thrown, without its stack. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
