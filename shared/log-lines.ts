import { writeSync } from 'node:fs';

/** How long a reader that is too slow is waited for, ms, and how often. */
const PAUSE_MS = 1;
const PAUSES_MAX = 5;

/**
 * Writes log lines to a descriptor, at once. A line that cannot be written (a full disk, a reader that has gone or is
 * too slow) is lost and counted: the log must not end the process that it tells of. Lines that were lost are told of
 * once it works again.
 */
export class LogLines {
  private readonly fd: number;
  private readonly writeTo: (fd: number, bytes: Uint8Array, offset: number) => number;
  private lost = 0;
  /** the line that was written last has no end */
  private isBroken = false;

  constructor(fd: number, writeTo: (fd: number, bytes: Uint8Array, offset: number) => number = writeSync) {
    this.fd = fd;
    this.writeTo = writeTo;
  }

  write(line: string): void {
    const note =
      this.lost > 0 ? `${JSON.stringify({ level: 40, msg: `${this.lost} log lines could not be written` })}\n` : '';
    if (this.put(`${this.isBroken ? '\n' : ''}${note}${line}`)) this.lost = 0;
    else this.lost += 1;
  }

  private put(text: string): boolean {
    const bytes = Buffer.from(text);
    let at = 0;
    for (let pauses = 0; at < bytes.length;) {
      try {
        at += this.writeTo(this.fd, bytes, at);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EAGAIN' && pauses++ < PAUSES_MAX) pause();
        else {
          this.isBroken ||= at > 0;
          return false;
        }
      }
    }
    this.isBroken = false;
    return true;
  }
}

function pause(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS);
}
