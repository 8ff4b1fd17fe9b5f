#!/usr/bin/env node
// Runs the compiled command. In a source checkout it first recompiles when a source file is newer than the last build,
// so that nobody has to remember a build step; an installed package has no tsconfig.json and goes straight on.
import { existsSync, readdirSync, statSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';

const root = fileURLToPath(new URL('..', import.meta.url));
const main = join(root, 'dist/cli/main.js');

function newestMs(dir) {
  let newest = 0;
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) newest = Math.max(newest, newestMs(path));
    else if (entry.name.endsWith('.ts')) newest = Math.max(newest, statSync(path).mtimeMs);
  }
  return newest;
}

if (existsSync(join(root, 'tsconfig.build.json')) && !process.env.LODESTAR_NO_BUILD) {
  const built = existsSync(main) ? statSync(main).mtimeMs : 0;
  const newest = Math.max(...['agent', 'brain', 'shared', 'sim', 'cli'].map((dir) => newestMs(join(root, dir))));
  if (newest > built) {
    const tsc = join(root, 'node_modules/typescript/bin/tsc');
    if (!existsSync(tsc)) {
      console.error('lodestar: this checkout is not installed yet: run `npm ci` first');
      process.exit(1);
    }
    const build = spawnSync(process.execPath, [tsc, '-p', join(root, 'tsconfig.build.json')], {
      stdio: ['ignore', 2, 2],
    });
    if (build.status !== 0) process.exit(build.status ?? 1);
  }
}
process.env.LODESTAR_NO_BUILD = '1';
await import('../dist/cli/main.js');
