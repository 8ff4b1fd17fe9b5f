import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify';
import type { AddressInfo } from 'node:net';
import { seededRng, type Clock } from '../../shared/env.ts';
import { errorMessage, LodestarError } from '../../shared/errors.ts';
import { Engine } from './engine.ts';
import { GpuStateWriter } from './gpu-state.ts';
import type { GpuProfile } from './gpus.ts';
import { ApiError } from './http/api-error.ts';
import { type Emulator, Faults } from './http/emulator.ts';
import { addFaultRoutes, FAULTS_PATH } from './http/faults.ts';
import { addGenerateRoutes } from './http/generate-routes.ts';
import { sampleToken } from './http/generation.ts';
import { addInfoRoutes } from './http/info-routes.ts';
import type { KvEvent } from './kv-events.ts';
import { KvPublisher } from './kv-publisher.ts';
import { EngineMetrics } from './metrics.ts';
import { linearStepTime, withNoise } from './step-time.ts';

const BLOCK_SIZE = 16;
const MAX_BODY_BYTES = 32 << 20;
/** vLLM's: an idle connection is closed after five seconds. */
const KEEP_ALIVE_MS = 5000;

export interface EmulatorOptions {
  clock: Clock;
  gpu: GpuProfile;
  host: string;
  /** 0 takes a free one. */
  port: number;
  model: string;
  /** KV cache in tokens; the GPU's own if absent. */
  kvTokens?: number | undefined;
  maxNumSeqs: number;
  maxBatchedTokens: number;
  maxModelLen: number;
  frontEndMs: number;
  /** Standard deviation of the logarithm of a step's time. */
  noise: number;
  seed: number;
  /** Where the stand-in for nvidia-smi finds what it reports. */
  gpuStateFile?: string | undefined;
  /** Port of the KV events, 0 for a free one; absent: none are published. */
  kvEventsPort?: number | undefined;
  /** Port of their replay, 0 for a free one. Needs `kvEventsPort`. */
  kvReplayPort?: number | undefined;
  /** Called by the `die` fault, with all connections destroyed. */
  onExit?: (() => void) | undefined;
}

/** A running emulated vLLM. */
export interface RunningEmulator {
  readonly url: string;
  readonly engine: Engine;
  /** Where KV events are published, if they are. */
  readonly kvEvents: { endpoint: string; replayEndpoint: string | undefined } | undefined;
  close(): Promise<void>;
}

/**
 * Starts an emulated vLLM and its HTTP server. CONFIG_INVALID if the port is taken or the KV cache is too small for one
 * request.
 */
export async function startEmulator(options: EmulatorOptions): Promise<RunningEmulator> {
  let publisher: KvPublisher | undefined;
  const app = Fastify({ bodyLimit: MAX_BODY_BYTES, keepAliveTimeout: KEEP_ALIVE_MS, forceCloseConnections: true });
  const exit = (): void => {
    app.server.closeAllConnections();
    void app.close();
    publisher?.close();
    options.onExit?.();
  };
  const emulator = makeEmulator(options, (events) => publisher?.publish(events), exit);
  addCommonBehaviour(app, emulator);
  addGenerateRoutes(app, emulator);
  addInfoRoutes(app, emulator);
  addFaultRoutes(app, emulator);
  const { engine } = emulator;
  const writer =
    options.gpuStateFile === undefined
      ? undefined
      : new GpuStateWriter(options.gpuStateFile, options.clock, options.gpu, engine);
  try {
    publisher = await startPublisher(options);
    await app.listen({ host: options.host, port: options.port });
  } catch (error) {
    writer?.stop();
    publisher?.close();
    if (error instanceof LodestarError) throw error;
    const isTaken = (error as NodeJS.ErrnoException).code === 'EADDRINUSE';
    const reason = isTaken
      ? 'is in use: choose another with --port, or 0 for a free one'
      : `cannot be opened: ${errorMessage(error)}`;
    throw new LodestarError('CONFIG_INVALID', `port ${options.port} of ${options.host} ${reason}`, { cause: error });
  }
  const { port } = app.server.address() as AddressInfo;
  return {
    url: `http://${options.host}:${port}`,
    engine,
    kvEvents: publisher && { endpoint: publisher.endpoint, replayEndpoint: publisher.replayEndpoint },
    close: async () => {
      writer?.stop();
      engine.die();
      publisher?.close();
      await app.close();
    },
  };
}

async function startPublisher({
  clock,
  host,
  kvEventsPort,
  kvReplayPort,
}: EmulatorOptions): Promise<KvPublisher | undefined> {
  if (kvEventsPort !== undefined)
    return await KvPublisher.start({
      host,
      port: kvEventsPort,
      replayPort: kvReplayPort,
      blockSize: BLOCK_SIZE,
      wallMs: () => clock.wallMs(),
    });
  if (kvReplayPort !== undefined)
    throw new LodestarError(
      'CONFIG_INVALID',
      '--kv-replay-port is of use with --kv-events-port only: add that, or leave it out',
    );
  return undefined;
}

function makeEmulator(
  options: EmulatorOptions,
  onKvEvents: (events: readonly KvEvent[]) => void,
  exit: () => void,
): Emulator {
  const { clock, gpu, maxModelLen } = options;
  const kvTokens = options.kvTokens ?? gpu.kvTokens;
  const blockCount = Math.floor(kvTokens / BLOCK_SIZE);
  if ((blockCount - 1) * BLOCK_SIZE < maxModelLen) {
    throw new LodestarError(
      'CONFIG_INVALID',
      `a KV cache of ${kvTokens} tokens cannot hold one request of --max-model-len ${maxModelLen}: lower that, or raise --kv-tokens`,
    );
  }
  const metrics = new EngineMetrics(maxModelLen);
  const engine = new Engine({
    clock,
    stepTime: withNoise(linearStepTime(gpu), options.noise, seededRng(options.seed)),
    frontEndMs: options.frontEndMs,
    metrics,
    blockCount,
    blockSize: BLOCK_SIZE,
    maxNumSeqs: options.maxNumSeqs,
    maxBatchedTokens: options.maxBatchedTokens,
    maxModelLen,
    sample: sampleToken,
    onKvEvents: options.kvEventsPort === undefined ? undefined : onKvEvents,
  });
  const startedWallMs = clock.wallMs();
  return {
    engine,
    metrics,
    clock,
    faults: new Faults(),
    model: options.model,
    gpu: gpu.key,
    maxModelLen,
    blockCount,
    startedWallMs,
    load: 0,
    exit,
  };
}

/** What holds for every route: honest header, hang fault, JSON only, vLLM's error shapes. */
function addCommonBehaviour(app: FastifyInstance, emulator: Emulator): void {
  const { faults } = emulator;
  app.addHook('onRequest', (request, reply, done) => {
    void reply.header('x-emulated', 'lodestar');
    if (!faults.isServerHung || request.url === FAULTS_PATH) {
      done();
      return;
    }
    reply.hijack();
    faults.hold(reply.raw);
  });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, text, done) => {
    try {
      done(null, JSON.parse(String(text)));
    } catch (error) {
      const detail = JSON.stringify({
        type: 'json_invalid',
        loc: ['body'],
        msg: `JSON decode error: ${errorMessage(error)}`,
      });
      done(new ApiError(400, 'Bad Request', `1 validation error:\n  ${detail}`));
    }
  });
  app.addContentTypeParser('*', { parseAs: 'string' }, (_request, text, done) => {
    if (text === '') done(null, undefined);
    else done(new ApiError(400, 'Bad Request', "Unsupported Media Type: Only 'application/json' is allowed"));
  });
  app.setErrorHandler((error, _request, reply) => {
    const answer = error instanceof ApiError ? error : fromFastify(error);
    void reply.status(answer.status).send(answer.body());
  });
  app.setNotFoundHandler((request, reply) => {
    const isKnown = isOtherMethodKnown(app, request);
    void reply.status(isKnown ? 405 : 404).send({ detail: isKnown ? 'Method Not Allowed' : 'Not Found' });
  });
}

function fromFastify(error: unknown): ApiError {
  const status = (error as { statusCode?: number }).statusCode ?? 500;
  if (status === 413) return new ApiError(413, 'BadRequestError', `the body is over ${MAX_BODY_BYTES} bytes`);
  if (status < 500) return new ApiError(400, 'Bad Request', errorMessage(error));
  return new ApiError(500, 'InternalServerError', 'internal error of the emulated engine');
}

function isOtherMethodKnown(app: FastifyInstance, request: FastifyRequest): boolean {
  const url = request.url.split('?', 1)[0]!;
  return app.hasRoute({ url, method: 'GET' }) || app.hasRoute({ url, method: 'POST' });
}
