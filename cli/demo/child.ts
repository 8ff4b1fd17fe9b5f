import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { LodestarError } from '../../shared/errors.ts';
import { packageRoot } from '../../shared/package-root.ts';

const READY_MS = 30_000;
const GRACE_MS = 3000;
const TAIL_LINES = 12;
const MAX_READY_BYTES = 65_536;

/** The compiled command, as a user starts it; the preload ends the process with this one. */
const COMMAND = join(packageRoot, 'bin/lodestar.mjs');
const PRELOAD = pathToFileURL(join(packageRoot, 'dist/cli/demo/exit-with-parent.js')).href;

export interface ChildOptions {
  name: string;
  /** Arguments of `lodestar`. */
  args: readonly string[];
  env: Readonly<Record<string, string | undefined>>;
  /** Standard error goes there. */
  logFile: string;
  /** Called when the process ends and nobody had stopped it. */
  onDeath: (error: LodestarError) => void;
}

/** One process of the fleet. It ends with `stop`, with `kill`, or when this process ends in whatever way. */
export class Child {
  readonly name: string;
  /** URL it listens on; rejects with PROCESS_DIED when it ends before, or takes too long. */
  readonly ready: Promise<string>;
  private readonly child: ChildProcess;
  private readonly logFile: string;
  private readonly gone: Promise<void>;
  private stopping = false;

  constructor(options: ChildOptions) {
    this.name = options.name;
    this.logFile = options.logFile;
    const log = openSync(options.logFile, 'a');
    // A group of its own: Ctrl-C reaches the demo alone, which stops its processes in order.
    this.child = spawn(process.execPath, ['--import', PRELOAD, COMMAND, ...options.args], {
      env: options.env,
      stdio: ['pipe', 'pipe', log],
      detached: true,
    });
    closeSync(log);
    this.child.stdin?.on('error', () => undefined);
    this.gone = new Promise((resolve) => {
      this.child.once('exit', () => resolve());
      this.child.once('error', () => resolve());
    });
    this.ready = this.waitUntilReady();
    this.ready.catch(() => undefined);
    void this.gone.then(() => {
      if (!this.stopping) options.onDeath(this.death(this.howItEnded()));
    });
  }

  get pid(): number | undefined {
    return this.child.pid;
  }

  /** Asks the process to end, and ends it by force after a grace period. Settles when it has ended. */
  async stop(): Promise<void> {
    this.stopping = true;
    this.child.kill('SIGTERM');
    const force = setTimeout(() => this.kill(), GRACE_MS);
    await this.gone;
    clearTimeout(force);
  }

  /** Ends the process and its own children at once. */
  kill(): void {
    this.stopping = true;
    if (this.child.pid === undefined || this.child.exitCode !== null || this.child.signalCode !== null) return;
    try {
      process.kill(-this.child.pid, 'SIGKILL');
    } catch {
      // It has ended meanwhile.
    }
  }

  private waitUntilReady(): Promise<string> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(this.death(`did not listen within ${READY_MS / 1000} s`)), READY_MS);
      let text = '';
      this.child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
        if (text.length < MAX_READY_BYTES) text += chunk;
        const url = listeningUrl(text);
        if (url === undefined) return;
        clearTimeout(timer);
        resolve(url);
      });
      void this.gone.then(() => {
        clearTimeout(timer);
        reject(this.death(this.howItEnded()));
      });
    });
  }

  private howItEnded(): string {
    const { exitCode, signalCode } = this.child;
    if (signalCode !== null) return `was ended by ${signalCode}`;
    return exitCode === null ? 'could not be started' : `ended with status ${exitCode}`;
  }

  private death(what: string): LodestarError {
    const tail = lastLines(this.logFile, TAIL_LINES);
    return new LodestarError(
      'PROCESS_DIED',
      `${this.name} ${what}${tail === '' ? '; its log is empty' : `; the end of its log:\n${tail}`}`,
    );
  }
}

/** The URL of the first complete `{"listening": url}` line; undefined while there is none. */
export function listeningUrl(text: string): string | undefined {
  for (const line of text.split('\n').slice(0, -1)) {
    const match = /^\{"listening":\s*"([^"]+)"\}\s*$/.exec(line);
    if (match) return match[1];
  }
  return undefined;
}

function lastLines(file: string, count: number): string {
  if (!existsSync(file)) return '';
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n').slice(-count);
  return lines.join('\n').trim() === '' ? '' : lines.map((line) => `  ${line}`).join('\n');
}
