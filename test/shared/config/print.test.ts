import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { describe, expect, it } from 'vitest';
import { configKeys, configSchema, defaultConfig, printConfig, updateDocs } from '../../../shared/config/index.ts';
import { packageRoot } from '../../../shared/package-root.ts';

const token = 'a-token-of-sixteen-or-more';

describe('printed configuration', () => {
  it('is valid and equals the defaults', () => {
    expect(configSchema.parse(parse(printConfig()))).toEqual(configSchema.parse({}));
  });

  it('describes every key', () => {
    expect(configKeys.filter((key) => key.description === '')).toEqual([]);
    const text = printConfig();
    for (const key of configKeys) expect(text).toContain(key.description);
  });

  it('has a variable of its own for every key outside lists', () => {
    const names = configKeys.flatMap((key) => key.env ?? []);
    expect(new Set(names).size).toBe(names.length);
    expect(names).toContain('LODESTAR_TOKEN');
  });
});

describe('docs/configuration.md', () => {
  it('is up to date (else: npx lodestar config docs docs/configuration.md)', () => {
    const page = readFileSync(join(packageRoot, 'docs/configuration.md'), 'utf8');
    expect(updateDocs(page)).toBe(page);
  });

  it('is not rewritten without markers', () => {
    expect(updateDocs('text')).toBeUndefined();
    expect(defaultConfig(token).token).toBe(token);
  });
});
