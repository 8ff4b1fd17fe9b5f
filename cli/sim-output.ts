import { writeFileSync } from 'node:fs';
import { errorMessage, LodestarError } from '../shared/errors.ts';

/** Runs a command's work: 0, or 1 with the error on standard error. */
export async function sayErrors(work: () => Promise<void>): Promise<number> {
  try {
    await work();
    return 0;
  } catch (error) {
    if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
    process.stderr.write(`lodestar: ${errorMessage(error)}\n`);
    return 1;
  }
}

/** Runs ended so far, on standard error if someone watches. */
export function showProgress(ended: number, total: number): void {
  if (process.stderr.isTTY) process.stderr.write(`\r${ended} of ${total} runs\u001b[K`);
}

/** Writes a value as JSON to a file, or to standard output for `-`. */
export function writeJson(file: string, value: object): void {
  const text = `${JSON.stringify(value, null, 2)}\n`;
  if (file === '-') process.stdout.write(text);
  else writeText(file, text);
}

/** Writes a file; STORE_FAILED naming it. */
export function writeText(file: string, text: string): void {
  try {
    writeFileSync(file, text);
  } catch (error) {
    throw new LodestarError('STORE_FAILED', `cannot write ${file}: ${errorMessage(error)}`, { cause: error });
  }
}
