import { isMainThread } from 'node:worker_threads';

// Preloaded into the processes of a demo. Their standard input is a pipe that only the demo holds: when it ends, the
// demo is gone, however it died, and nobody else would stop them. Worker threads load this too, and have an input of
// their own.
if (isMainThread) {
  const leave = (): void => process.exit(1);
  process.stdin.on('end', leave).on('error', leave).resume().unref();
}
