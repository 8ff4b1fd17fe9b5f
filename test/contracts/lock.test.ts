import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { packageRoot } from '../../shared/package-root.ts';

interface LockEntry {
  optionalDependencies?: Record<string, string>;
  resolved?: string;
}

const lock = JSON.parse(readFileSync(join(packageRoot, 'package-lock.json'), 'utf8')) as {
  packages: Record<string, LockEntry>;
};

test('the lock file names every optional dependency: `npm ci` refuses one that leaves out the binaries of other platforms', () => {
  const missing: string[] = [];
  for (const [path, entry] of Object.entries(lock.packages)) {
    for (const name of Object.keys(entry.optionalDependencies ?? {})) {
      // Looked up as Node does: in the package's own node_modules, then in those of each parent.
      const parents = path
        .split('/node_modules/')
        .map((_, i, parts) => parts.slice(0, parts.length - i).join('/node_modules/'));
      const found = [
        ...parents.map((parent) => `${parent ? `${parent}/` : ''}node_modules/${name}`),
        `node_modules/${name}`,
      ].some((at) => at in lock.packages);
      if (!found) missing.push(`${path || '(root)'} wants ${name}`);
    }
  }
  expect(missing).toEqual([]);
});

test('the lock file names no registry', () => {
  expect(Object.entries(lock.packages).filter(([, entry]) => entry.resolved !== undefined)).toEqual([]);
});
