import { LodestarError } from '../../shared/errors.ts';

/** One regular file of an archive. */
export interface TarEntry {
  name: string;
  bytes: Buffer;
}

const BLOCK = 512;
const MAX_ENTRIES = 10_000;

/** Whether bytes begin with a tar header (POSIX ustar or GNU). */
export function isTar(bytes: Buffer): boolean {
  return bytes.length >= BLOCK && bytes.toString('latin1', 257, 262) === 'ustar';
}

/**
 * Regular files of a tar archive held in memory (POSIX.1-1988 ustar: header blocks of 512 bytes, sizes in octal);
 * links, folders and extended headers are passed over. Nothing is written to disk. Throws TRACE_INVALID where the
 * archive is cut or broken.
 */
export function readTar(archive: Buffer, name: string): TarEntry[] {
  const entries: TarEntry[] = [];
  for (let at = 0; at + BLOCK <= archive.length && archive[at] !== 0;) {
    const header = archive.subarray(at, at + BLOCK);
    const size = octal(header, 124, 12);
    const start = at + BLOCK;
    if (!isTar(header) || !Number.isSafeInteger(size) || start + size > archive.length) {
      throw new LodestarError('TRACE_INVALID', `${name}: the tar archive is broken at byte ${at}`);
    }
    const type = header[156];
    if (type === 0x30 || type === 0) {
      const prefix = field(header, 345, 155);
      entries.push({
        name: (prefix === '' ? '' : `${prefix}/`) + field(header, 0, 100),
        bytes: archive.subarray(start, start + size),
      });
    }
    if (entries.length > MAX_ENTRIES)
      throw new LodestarError('TRACE_INVALID', `${name}: more than ${MAX_ENTRIES} files in the archive`);
    at = start + Math.ceil(size / BLOCK) * BLOCK;
  }
  return entries;
}

function field(header: Buffer, start: number, length: number): string {
  const end = header.indexOf(0, start);
  return header.toString('utf8', start, end >= 0 && end < start + length ? end : start + length);
}

function octal(header: Buffer, start: number, length: number): number {
  const text = field(header, start, length).trim();
  return /^[0-7]+$/.test(text) ? parseInt(text, 8) : NaN;
}
