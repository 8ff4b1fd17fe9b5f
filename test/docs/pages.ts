import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../shared/package-root.ts';

/** Every page of documentation, as a path from the root of the package. */
export function pages(): string[] {
  const inFolder = (folder: string): string[] =>
    readdirSync(join(packageRoot, folder), { withFileTypes: true }).flatMap((entry) => {
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`;
      if (entry.isDirectory()) return folder === '' ? [] : inFolder(path);
      return entry.name.endsWith('.md') ? [path] : [];
    });
  return ['', 'docs', 'deploy'].flatMap(inFolder);
}

export function readPage(path: string): string {
  return readFileSync(join(packageRoot, path), 'utf8');
}

/** The text under a heading, up to the next one of the same or a higher level. */
export function section(text: string, heading: string): string {
  const level = heading.match(/^#+/)?.[0].length ?? 0;
  const lines = text.split('\n');
  const start = lines.indexOf(heading);
  if (start < 0) throw new Error(`no heading ${heading}`);
  const length = lines
    .slice(start + 1)
    .findIndex((line) => /^#+ /.test(line) && (line.match(/^#+/)?.[0].length ?? 0) <= level);
  return lines.slice(start + 1, length < 0 ? undefined : start + 1 + length).join('\n');
}

/** Cells of each row of the tables in a text, heads and rules left out. `\|` is no border. */
export function rows(text: string): string[][] {
  const lines = text.split('\n').filter((line) => line.startsWith('|'));
  const isRule = (line: string | undefined): boolean => line !== undefined && /^\|[-|]+\|$/.test(line);
  return lines
    .filter((line, at) => !isRule(line) && !isRule(lines[at + 1]))
    .map((line) =>
      line
        .split(/(?<!\\)\|/)
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
}

/** What stands between backticks. */
export function codeIn(text: string): string[] {
  return [...text.matchAll(/`([^`\n]+)`/g)].map((match) => match[1] as string);
}
