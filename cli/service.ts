import { errorMessage } from '../shared/errors.ts';

const HOLD_MS = 60_000;

/** A started service, as the command line sees it. */
export interface Service {
  url: string;
  /** orderly stop: lets what is running end */
  stop(): Promise<void>;
  /** stop at once */
  kill(): Promise<void>;
}

/**
 * Starts a service, prints `{"listening": url}` on standard output when it is ready, and runs until a signal. The first
 * SIGTERM or SIGINT stops it in order, a second one at once. An error at the start is one line on standard error and
 * exit status 1.
 */
export async function runService(start: () => Promise<Service>): Promise<void> {
  let service: Service;
  try {
    service = await start();
  } catch (error) {
    console.error(`lodestar: ${errorMessage(error)}`);
    process.exit(1);
  }
  console.log(JSON.stringify({ listening: service.url }));
  // Injected timers do not hold the process open: this one does, while the service stops too.
  setInterval(() => undefined, HOLD_MS);
  let stopping = false;
  const onSignal = (): void => {
    const done = stopping ? service.kill() : service.stop();
    stopping = true;
    done.then(
      () => process.exit(0),
      (error: unknown) => {
        console.error(`lodestar: ${errorMessage(error)}`);
        process.exit(1);
      },
    );
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
}
