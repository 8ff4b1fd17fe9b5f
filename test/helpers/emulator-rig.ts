import { request as httpRequest, type IncomingMessage } from 'node:http';
import { findGpu, loadGpus } from '../../sim/engine/gpus.ts';
import { startEmulator, type EmulatorOptions, type RunningEmulator } from '../../sim/engine/server.ts';
import { VirtualClock } from './virtual-clock.ts';

/** One emulated vLLM on virtual time, asked over real sockets. */
export class EmulatorRig {
  clock = new VirtualClock();
  exited = 0;
  private started: RunningEmulator | undefined;

  get running(): RunningEmulator {
    if (!this.started) throw new Error('not started');
    return this.started;
  }

  set running(emulator: RunningEmulator) {
    this.started = emulator;
  }

  async start(): Promise<void> {
    this.clock = new VirtualClock();
    this.exited = 0;
    this.started = await startEmulator(this.optionsFor());
  }

  readonly optionsFor = (extra: Partial<EmulatorOptions> = {}): EmulatorOptions => ({
    clock: this.clock,
    gpu: findGpu(loadGpus(), 'A30'),
    host: '127.0.0.1',
    port: 0,
    model: 'tiny',
    maxNumSeqs: 256,
    maxBatchedTokens: 2048,
    maxModelLen: 4096,
    frontEndMs: 8,
    noise: 0,
    seed: 1,
    onExit: () => this.exited++,
    ...extra,
  });

  /** Lets virtual time and sockets go on until `promise` settles. */
  readonly settle = async <T>(promise: Promise<T>): Promise<T> => {
    const state = { isSettled: false };
    const watched = promise.finally(() => (state.isSettled = true));
    watched.catch(() => undefined);
    await this.until(() => state.isSettled);
    return watched;
  };

  readonly until = async (condition: () => boolean): Promise<void> => {
    while (!condition()) await this.clock.advanceWithIo(5);
  };

  readonly post = (path: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> =>
    this.settle(
      fetch(this.running.url + path, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: typeof body === 'string' ? body : JSON.stringify(body),
      }),
    );

  readonly get = (path: string): Promise<Response> => this.settle(fetch(this.running.url + path));

  readonly textOf = (response: Response): Promise<string> => this.settle(response.text());

  readonly fault = (body: unknown): Promise<Response> => this.post('/emulator/faults', body);

  /** A raw streaming request, for what fetch hides. */
  readonly open = (
    body: object,
    path = '/v1/completions',
  ): { response: Promise<IncomingMessage>; abort: () => void } => {
    const request = httpRequest(this.running.url + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
    });
    const response = new Promise<IncomingMessage>((resolve, reject) => {
      request.on('response', resolve);
      request.on('error', reject);
    });
    response.catch(() => undefined);
    request.end(JSON.stringify(body));
    return { response, abort: () => void request.destroy() };
  };
}
