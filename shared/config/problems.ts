import type { z } from 'zod';
import { keyAt, namesUnder } from './keys.ts';

/** Where each set value came from (a file, a variable, a flag), by its path. */
export type Sources = ReadonlyMap<string, string>;

/** One line a problem: the key's path, what was found, where it was set, and the fix. */
export function explainIssues(issues: readonly z.core.$ZodIssue[], input: unknown, sources: Sources): string[] {
  const lines = issues.flatMap((issue) => {
    const path = pathText(issue.path);
    if (issue.code === 'unrecognized_keys') return issue.keys.map((name) => unknownKey(path, name, sources));
    return [badValue(issue, path, valueAt(input, issue.path), sources)];
  });
  // A value that breaks two rules, a range and a multiple, is one problem: the line names both.
  return [...new Set(lines)];
}

/** Says that a key does not exist and which one is meant, if one is near. */
export function unknownKey(group: string, name: string, sources: Sources): string {
  const path = group === '' ? name : `${group}.${name}`;
  const names = namesUnder(group.replaceAll(/\[\d+\]/g, '[]'));
  const near = nearest(name, names);
  const fix = near === undefined ? `known here: ${names.join(', ')}` : `did you mean \`${near}\`?`;
  return `${path}: unknown key${sourceOf(path, sources)}; ${fix}`;
}

/** The candidate within a third of the word's length in edits (at least two), or undefined. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const limit = Math.max(2, Math.floor(word.length / 3));
  let best: string | undefined;
  let bestEdits = limit + 1;
  for (const candidate of candidates) {
    const edits = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (edits < bestEdits) {
      best = candidate;
      bestEdits = edits;
    }
  }
  return best;
}

/** Path in words: `['agent', 'instances', 0, 'url']` → `agent.instances[0].url`. */
export function pathText(path: readonly PropertyKey[]): string {
  let text = '';
  for (const part of path) {
    if (typeof part === 'number') text += `[${part}]`;
    else text += text === '' ? String(part) : `.${String(part)}`;
  }
  return text;
}

function badValue(issue: z.core.$ZodIssue, path: string, value: unknown, sources: Sources): string {
  const where = sourceOf(path, sources);
  const key = keyAt(path);
  const allowed = key?.type ?? keyAt(path.replace(/\[\d+\]$/, ''))?.elementType;
  const fix = allowed === undefined ? 'write a group of keys here' : `set ${allowed}`;
  if (value === undefined)
    return `${path}: is missing${where}; ${fix} (${key?.description ?? 'see `lodestar config print`'})`;
  const found = isSecret(path) ? `a text of ${String(value).length} characters` : describe(value);
  if (issue.code === 'custom' || issue.code === 'invalid_format')
    return `${path}: ${found} ${issue.message}${where}; ${key?.description ?? ''}`.trimEnd();
  if (isSecret(path))
    return `${path}: found ${found}${where}; at least 16 are needed: run \`lodestar config init\` to make a token`;
  return `${path}: found ${found}${where}; ${fix}`;
}

function isSecret(path: string): boolean {
  return path === 'token' || path.endsWith('.apiKey');
}

function describe(value: unknown): string {
  if (value === null) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a group of keys';
  const text = JSON.stringify(value);
  return `${text.length > 80 ? `${text.slice(0, 80)}…` : text} (${typeof value === 'string' ? 'text' : typeof value})`;
}

function sourceOf(path: string, sources: Sources): string {
  for (let at = path; at !== ''; at = at.replace(/(\.[^.[]+|\[\d+\]|^[^.[]+)$/, '')) {
    const source = sources.get(at);
    if (source !== undefined) return ` in ${source}`;
  }
  return '';
}

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  let value = input;
  for (const part of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = (value as Record<PropertyKey, unknown>)[part];
  }
  return value;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replace, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
