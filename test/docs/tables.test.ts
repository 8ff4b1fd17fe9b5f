import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { FEATURES } from '../../shared/features.ts';
import { objectives } from '../../shared/choice/objectives/index.ts';
import { agentMessageSchema, brainMessageSchema } from '../../shared/protocol.ts';
import { reportSchema } from '../../shared/report.ts';
import { sampleSchema } from '../../shared/sample.ts';
import { sealedTableSchema, tableSchema } from '../../shared/table.ts';
import { codeIn, readPage, rows, section } from './pages.ts';

const protocol = readPage('docs/protocol.md');
const learning = readPage('docs/learning.md');

/** Names of the first column. */
function firstColumn(text: string): string[] {
  return rows(text).flatMap(([first = '']) => codeIn(first));
}

const messages = [...agentMessageSchema.options, ...brainMessageSchema.options].map((schema) => {
  const { t, ...fields } = schema.shape;
  return { type: t.value, fields: Object.keys(fields) };
});

describe('docs/protocol.md', () => {
  test.each(messages)('lists the fields of $type', ({ type, fields }) => {
    expect(firstColumn(section(protocol, `#### \`${type}\``)).toSorted()).toEqual(fields.toSorted());
  });

  test('knows no message that is not there', () => {
    const named = [...protocol.matchAll(/^#### `(.+)`$/gm)].map((match) => match[1] as string);
    expect(named.toSorted()).toEqual([...new Set(messages.map(({ type }) => type))].toSorted());
  });

  test.each([
    ['### Report', reportSchema],
    ['### Sample', sampleSchema],
    ['### Routing table', tableSchema],
  ] as const)('lists the fields of %s', (heading, schema) => {
    expect(firstColumn(section(protocol, heading)).toSorted()).toEqual(Object.keys(schema.shape).toSorted());
  });

  test('names the fields inside fields', () => {
    const unnamed = (heading: string, schema: z.ZodObject): string[] => {
      const known = new Set(codeIn(section(protocol, heading)));
      return inner(schema).filter((name) => !known.has(name) && !/^c[1-3]$/.test(name));
    };
    expect(unnamed('### Report', reportSchema)).toEqual([]);
    expect(unnamed('### Sample', sampleSchema)).toEqual([]);
    expect(unnamed('### Routing table', tableSchema.omit({ laws: true }))).toEqual([]);
    expect(unnamed('### Routing table', sealedTableSchema)).toEqual([]);
  });
});

/** Names of all fields of an object and of the objects in it. */
function inner(schema: z.core.$ZodType): string[] {
  if (schema instanceof z.ZodObject)
    return Object.entries(schema.shape).flatMap(([name, child]) => [name, ...inner(child)]);
  if (schema instanceof z.ZodArray) return inner(schema.element);
  if (schema instanceof z.ZodNullable) return inner(schema.unwrap());
  return [];
}

describe('docs/learning.md', () => {
  test('lists the features in their order', () => {
    expect(firstColumn(section(learning, '## Features'))).toEqual([...FEATURES]);
  });

  test('states the weights of every objective', () => {
    const stated = rows(section(learning, '## Choice')).filter(([name = '']) =>
      codeIn(name).some((one) => one in objectives),
    );
    const inCode = Object.values(objectives).map(
      ({ name, weights: { queue, busy, decode, paceTokens, kv, block } }) => [
        name,
        ...[queue, busy, decode, paceTokens, kv, block].map(String),
      ],
    );
    expect(stated.map(([name = '', , ...weights]) => [codeIn(name).join(''), ...weights])).toEqual(inCode);
  });
});
