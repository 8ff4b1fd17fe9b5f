import type { Clock, Log } from './env.ts';

/** Rejections that nobody has dealt with are said at most this often: one in each packet must not fill the log. */
const SAY_MS = 1000;

/** Where a process tells what nobody has dealt with. */
export interface ProcessEvents {
  on(event: 'unhandledRejection' | 'uncaughtException', listener: (error: unknown) => void): unknown;
  exit(code: number): unknown;
}

let rejections = 0;

/** Rejections of promises that nobody has dealt with, since the start of the process. */
export function unhandledRejections(): number {
  return rejections;
}

/**
 * What becomes of errors that nobody has dealt with. A rejected promise is work that has ended by itself, such as a
 * report, a write or a fit: requests go by callbacks. It is said with its stack and counted, and the process goes on.
 * An exception has left some call half done, and what it was about is in an unknown state: it is said, and the process
 * ends with status 1, to be started anew.
 */
export function guardProcess(log: Log, clock: Clock, process: ProcessEvents): void {
  let saidMs = -Infinity;
  let unsaid = 0;
  process.on('unhandledRejection', (error) => {
    rejections += 1;
    unsaid += 1;
    if (clock.nowMs() - saidMs < SAY_MS) return;
    log.error(
      { err: error, count: unsaid },
      'a promise was rejected and nobody has dealt with it: the process goes on',
    );
    saidMs = clock.nowMs();
    unsaid = 0;
  });
  process.on('uncaughtException', (error) => {
    log.fatal({ err: error }, 'an exception was not caught: the process ends');
    process.exit(1);
  });
}
