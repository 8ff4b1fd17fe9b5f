import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { expect, test } from 'vitest';
import { packageRoot } from '../../shared/package-root.ts';

/** A folder, a file, or some types of a file: the import of a type is gone at run time. */
type Allowed = string | { readonly file: string; readonly types: readonly string[] };

/**
 * Folder or file → what of ours its files may import. The longest match of a path counts.
 * A path without a match may import nothing.
 */
const MAY_IMPORT: Record<string, readonly Allowed[]> = {
  shared: ['shared'],
  'agent/request': ['agent/request', 'shared'],
  'agent/wire': ['agent/wire', 'shared'],
  'agent/door': ['agent/door', 'agent/request', 'agent/wire', 'shared'],
  'agent/entry': [
    'agent/entry',
    'agent/door/deliver.ts',
    { file: 'agent/door/door-instance.ts', types: ['DoorInstance'] },
    'agent/request',
    'agent/wire',
    'agent/metrics.ts',
    'shared',
  ],
  'agent/link': [
    'agent/link',
    'agent/door',
    'agent/entry',
    'agent/request',
    'agent/wire',
    'agent/metrics.ts',
    'shared',
  ],
  'agent/metrics.ts': ['shared'],
  'agent/status.ts': ['agent/door', 'agent/entry', 'shared'],
  'agent/server.ts': ['agent', 'shared'],
  'agent/main.ts': ['agent', 'shared'],
  brain: ['brain', 'shared'],
  'sim/engine': ['sim/engine', 'shared'],
  'sim/workloads': ['sim/workloads', 'shared'],
  'sim/fleet': ['agent', 'brain', 'shared', 'sim'],
  cli: ['agent', 'brain', 'shared', 'sim', 'cli'],
};

interface Import {
  target: string;
  /** names of an `import type` or `export type`, else undefined */
  types: readonly string[] | undefined;
}

function sources(dir: string): string[] {
  return readdirSync(join(packageRoot, dir), { withFileTypes: true }).flatMap((entry) => {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) return sources(path);
    return entry.name.endsWith('.ts') ? [path] : [];
  });
}

function importsOf(path: string): Import[] {
  const text = readFileSync(join(packageRoot, path), 'utf8');
  const found = text.matchAll(/(?:(?:\btype\s*\{([^}]*)\}\s*)?from|import\(|import)\s*'([^']+)'/g);
  return [...found].map(([, types, target]) => ({
    target: target as string,
    types: types
      ?.split(',')
      .map((name) => name.trim())
      .filter((name) => name !== ''),
  }));
}

const files = ['agent', 'brain', 'shared', 'sim', 'cli'].flatMap(sources);

function isIn(path: string, place: string): boolean {
  return path === place || path.startsWith(`${place}/`);
}

function ruleOf(path: string): readonly Allowed[] {
  const places = Object.keys(MAY_IMPORT).filter((place) => isIn(path, place));
  const longest = places.toSorted((a, b) => b.length - a.length)[0];
  return longest === undefined ? [] : (MAY_IMPORT[longest] as readonly Allowed[]);
}

function allows(allowed: Allowed, path: string, types: Import['types']): boolean {
  if (typeof allowed === 'string') return isIn(path, allowed);
  return path === allowed.file && types !== undefined && types.every((name) => allowed.types.includes(name));
}

test('every file imports only what its own folder may know', () => {
  const broken: string[] = [];
  for (const path of files) {
    for (const { target, types } of importsOf(path).filter((one) => one.target.startsWith('.'))) {
      const resolved = relative(packageRoot, normalize(join(packageRoot, dirname(path), target)));
      if (!ruleOf(path).some((allowed) => allows(allowed, resolved, types))) broken.push(`${path} imports ${resolved}`);
    }
  }
  expect(broken).toEqual([]);
});

test('the rule names only what is there', () => {
  const named = Object.entries(MAY_IMPORT).flatMap(([place, rule]) => [
    place,
    ...rule.map((allowed) => (typeof allowed === 'string' ? allowed : allowed.file)),
  ]);
  expect(named.filter((place) => !existsSync(join(packageRoot, place)))).toEqual([]);
});

test('the agent and what it shares with the brain never load TensorFlow.js', () => {
  const loading = files
    .filter((path) => /^(agent|shared)\//.test(path))
    .filter((path) => importsOf(path).some(({ target }) => target.startsWith('@tensorflow/')));
  expect(loading).toEqual([]);
});
