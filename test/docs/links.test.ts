import { existsSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { expect, test } from 'vitest';
import { packageRoot } from '../../shared/package-root.ts';
import { codeIn, pages, readPage } from './pages.ts';

/** Anchor of a heading, as GitHub makes it. */
function anchor(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
    .trim()
    .replaceAll(' ', '-');
}

function anchors(path: string): string[] {
  return [...readPage(path).matchAll(/^#+ (.+)$/gm)].map((match) => anchor(match[1] as string));
}

/** Without fenced blocks: they hold commands and output. */
function prose(path: string): string {
  return readPage(path).replaceAll(/^```[\s\S]*?^```/gm, '');
}

test.each(pages())('%s: links lead somewhere', (page) => {
  const broken: string[] = [];
  for (const [, target = ''] of prose(page).matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^https?:/.test(target)) continue;
    const [path = '', hash] = target.split('#');
    const file = path === '' ? page : normalize(join(dirname(page), path));
    if (!existsSync(join(packageRoot, file))) broken.push(target);
    else if (hash !== undefined && !anchors(file).includes(hash)) broken.push(target);
  }
  expect(broken).toEqual([]);
});

test.each(pages())('%s: files and folders that it names exist', (page) => {
  const named = codeIn(prose(page)).filter((text) =>
    /^(agent|brain|shared|sim|cli|test|docs|scripts|deploy|bin)\/[\w./-]+$/.test(text),
  );
  expect(named.filter((path) => !existsSync(join(packageRoot, path)))).toEqual([]);
});
