import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { errorMessage, LodestarError } from '../../shared/errors.ts';
import { isTar, readTar } from './tar.ts';

/** One text file of a trace; most traces are one. `name` is what errors call it. */
export interface TraceFile {
  name: string;
  text: string;
  /** Folder that holds it within an archive or a folder of traces. */
  folder?: string | undefined;
}

/** More text than this, unpacked, is not read. */
const MAX_BYTES = 384 << 20;
const MAX_FILES = 10_000;

/**
 * The text files behind a path: the file itself, gzip or plain; the JSON lines in a tar archive, gzip or plain; or
 * those in a folder and its folders, by name. Throws TRACE_INVALID if it cannot be read or is too large.
 */
export function readSource(path: string): TraceFile[] {
  try {
    return statSync(path).isDirectory() ? readFolder(path) : readOne(path, path, MAX_BYTES);
  } catch (error) {
    if (error instanceof LodestarError) throw error;
    throw new LodestarError('TRACE_INVALID', `cannot read the trace ${path}: ${errorMessage(error)}`, { cause: error });
  }
}

function readOne(path: string, name: string, maxBytes: number): TraceFile[] {
  if (statSync(path).size > maxBytes) throw tooLarge(name);
  const raw = readFileSync(path);
  const bytes = raw[0] === 0x1f && raw[1] === 0x8b ? gunzipSync(raw, { maxOutputLength: maxBytes }) : raw;
  if (!isTar(bytes)) return [{ name, text: bytes.toString('utf8') }];
  return readTar(bytes, name)
    .filter((entry) => isJsonLines(entry.name))
    .map((entry) => ({
      name: `${name}:${entry.name}`,
      text: entry.bytes.toString('utf8'),
      folder: folderOf(entry.name),
    }));
}

function readFolder(folder: string): TraceFile[] {
  const paths = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter(isJsonLines).toSorted();
  if (paths.length > MAX_FILES)
    throw new LodestarError('TRACE_INVALID', `${folder} holds ${paths.length} files; at most ${MAX_FILES} are read`);
  const files: TraceFile[] = [];
  let left = MAX_BYTES;
  for (const path of paths) {
    for (const file of readOne(join(folder, path), join(folder, path), left)) {
      files.push({ ...file, folder: file.folder ?? folderOf(path) });
      left -= file.text.length;
    }
  }
  return files;
}

function folderOf(path: string): string | undefined {
  return path.split(/[/\\]/).at(-2);
}

function isJsonLines(path: string): boolean {
  return /\.(jsonl|json)(\.gz)?$/.test(path);
}

function tooLarge(name: string): LodestarError {
  return new LodestarError(
    'TRACE_INVALID',
    `${name} is larger than ${MAX_BYTES >> 20} MiB: cut it, for example with \`head\``,
  );
}
