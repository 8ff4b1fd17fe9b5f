import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import { packageRoot } from '../../shared/package-root.ts';

/** A `lodestar` command running as its own process. */
export interface LodestarProcess {
  child: ChildProcess;
  /** what it said it listens on */
  url: string;
  /** everything that it wrote to standard error so far */
  log(): string;
  /** SIGKILL, and waits until it is gone */
  kill(): Promise<void>;
}

/** Starts a command from the compiled tree and waits for its `{"listening": url}` line. */
export function startProcess(args: readonly string[], env: Record<string, string>): Promise<LodestarProcess> {
  const child = spawn(process.execPath, [join(packageRoot, 'bin/lodestar.mjs'), ...args], {
    env: { ...process.env, LODESTAR_NO_BUILD: '1', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (log += text));
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`lodestar ${args.join(' ')} exited with ${code}: ${log}`)));
    createInterface({ input: child.stdout }).once('line', (line) => {
      const { listening } = JSON.parse(line) as { listening: string };
      resolve({
        child,
        url: listening,
        log: () => log,
        kill() {
          child.kill('SIGKILL');
          return gone;
        },
      });
    });
  });
}

/** Polls until the condition holds; for states of other processes, which announce nothing. */
export async function eventually(what: string, condition: () => Promise<boolean>, tries = 600): Promise<void> {
  for (let i = 0; i < tries; i++) {
    if (await condition().catch(() => false)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${what}: still not so`);
}
