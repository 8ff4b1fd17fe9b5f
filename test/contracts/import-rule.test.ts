import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { expect, test } from 'vitest';
import { packageRoot } from '../../shared/package-root.ts';

/** Folder → folders of ours that its files may import from. The longest matching folder of a file counts. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  shared: ['shared'],
  agent: ['agent', 'shared'],
  brain: ['brain', 'shared'],
  'brain/twin': ['brain', 'shared', 'sim/engine', 'sim/workloads'],
  'sim/engine': ['sim/engine', 'shared'],
  'sim/workloads': ['sim/workloads', 'shared'],
  'sim/fleet': ['agent', 'brain', 'shared', 'sim'],
  cli: ['agent', 'brain', 'shared', 'sim', 'cli'],
};

function sources(dir: string): string[] {
  return readdirSync(join(packageRoot, dir), { withFileTypes: true }).flatMap((entry) => {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) return sources(path);
    return entry.name.endsWith('.ts') ? [path] : [];
  });
}

function importsOf(path: string): string[] {
  const text = readFileSync(join(packageRoot, path), 'utf8');
  return [...text.matchAll(/(?:from|import\(|import)\s*'([^']+)'/g)].map((match) => match[1] as string);
}

const files = ['agent', 'brain', 'shared', 'sim', 'cli'].flatMap(sources);

function ruleOf(path: string): readonly string[] {
  const folder = Object.keys(MAY_IMPORT)
    .filter((one) => path.startsWith(`${one}/`))
    .toSorted((a, b) => b.length - a.length)[0];
  return folder ? (MAY_IMPORT[folder] as readonly string[]) : [];
}

test('every file imports only from the folders that its own folder may know', () => {
  const broken: string[] = [];
  for (const path of files) {
    for (const target of importsOf(path).filter((one) => one.startsWith('.'))) {
      const resolved = relative(packageRoot, normalize(join(packageRoot, dirname(path), target)));
      if (!ruleOf(path).some((folder) => resolved.startsWith(`${folder}/`))) broken.push(`${path} imports ${resolved}`);
    }
  }
  expect(broken).toEqual([]);
});

test('the agent and what it shares with the brain never load TensorFlow.js', () => {
  const loading = files.filter((path) => /^(agent|shared)\//.test(path) && importsOf(path).some((one) => one.startsWith('@tensorflow/')));
  expect(loading).toEqual([]);
});
