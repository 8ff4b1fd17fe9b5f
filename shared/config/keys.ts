import { z } from 'zod';
import { configSchema } from './schema.ts';

/** One leaf key of the configuration, read off the schema. */
export interface KeyInfo {
  /** Path from the top; `[]` stands for the elements of a list, as in agent.instances[].url. */
  path: string;
  /** Range or choices in words. */
  type: string;
  /** The same of a list's elements; undefined for what is no list of plain values. */
  elementType: string | undefined;
  /** Value used when nobody sets the key; undefined when there is none. */
  fallback: unknown;
  description: string;
  /** Environment variable that sets it; undefined for the keys of list elements. */
  env: string | undefined;
  /** True when a value from the environment or a flag is taken as it stands, false when it is read as YAML. */
  isText: boolean;
}

/** A group of keys (`agent`, `agent.breaker`, …). */
export interface GroupInfo {
  path: string;
  description: string;
}

type AnySchema = z.core.$ZodType;

/** Every leaf key in the order of the schema. */
export const configKeys: readonly KeyInfo[] = leaves(configSchema, '');

/** Every group of keys by its path. */
export const configGroups: ReadonlyMap<string, GroupInfo> = new Map(
  groups(configSchema, '').map((group) => [group.path, group]),
);

/** The names allowed directly under a path ('' is the top; list elements as `[]`), for suggestions. */
export function namesUnder(path: string): string[] {
  const prefix = path === '' ? '' : `${path}.`;
  const names = configKeys
    .filter((key) => key.path.startsWith(prefix))
    .map((key) => key.path.slice(prefix.length).split(/[.[]/)[0] ?? '');
  return [...new Set(names)];
}

/** The leaf or group of a path in which list positions may be numbers; undefined when there is none. */
export function keyAt(path: string): KeyInfo | undefined {
  const general = path.replaceAll(/\[\d+\]/g, '[]');
  return configKeys.find((key) => key.path === general);
}

/** Environment name of a key: `agent.firstByteTimeoutMs` → `LODESTAR_AGENT_FIRST_BYTE_TIMEOUT_MS`. */
export function envName(path: string): string {
  const words = path.split('.').map((part) => part.replaceAll(/([a-z0-9])([A-Z])/g, '$1_$2').toUpperCase());
  return `LODESTAR_${words.join('_')}`;
}

function leaves(schema: AnySchema, path: string): KeyInfo[] {
  const { inner, fallback } = unwrap(schema);
  if (inner instanceof z.ZodObject) {
    return Object.entries(inner.shape as Record<string, AnySchema>).flatMap(([name, child]) =>
      leaves(child, path === '' ? name : `${path}.${name}`),
    );
  }
  const element = inner instanceof z.ZodArray ? unwrap(inner.element).inner : undefined;
  const own: KeyInfo = {
    path,
    type: typeText(inner),
    elementType: element === undefined || element instanceof z.ZodObject ? undefined : typeText(element),
    fallback,
    description: descriptionOf(schema),
    env: path.includes('[]') ? undefined : envName(path),
    isText: inner instanceof z.ZodString || inner instanceof z.ZodEnum,
  };
  if (inner instanceof z.ZodArray && element instanceof z.ZodObject)
    return [own, ...leaves(inner.element, `${path}[]`)];
  return [own];
}

function groups(schema: AnySchema, path: string): GroupInfo[] {
  const { inner } = unwrap(schema);
  if (inner instanceof z.ZodArray) return groups(inner.element, `${path}[]`);
  if (!(inner instanceof z.ZodObject)) return [];
  const own = path === '' ? [] : [{ path, description: descriptionOf(schema) }];
  const children = Object.entries(inner.shape as Record<string, AnySchema>);
  return [...own, ...children.flatMap(([name, child]) => groups(child, path === '' ? name : `${path}.${name}`))];
}

function unwrap(schema: AnySchema): { inner: AnySchema; fallback: unknown } {
  let inner = schema;
  let fallback: unknown;
  for (;;) {
    if (inner instanceof z.ZodDefault) {
      fallback = inner.def.defaultValue;
      inner = inner.def.innerType;
    } else if (inner instanceof z.ZodOptional || inner instanceof z.ZodPrefault) inner = inner.def.innerType;
    else return { inner, fallback };
  }
}

function descriptionOf(schema: AnySchema): string {
  return schema instanceof z.ZodType ? (schema.description ?? '') : '';
}

function typeText(schema: AnySchema): string {
  if (schema instanceof z.ZodEnum) return schema.options.join(' | ');
  if (schema instanceof z.ZodNumber) {
    const kind = schema.isInt ? 'whole number' : 'number';
    const min = schema.minValue ?? -Infinity;
    const max = schema.maxValue ?? Infinity;
    const bounds = [
      min > Number.MIN_SAFE_INTEGER ? `from ${min}` : '',
      max < Number.MAX_SAFE_INTEGER ? `to ${max}` : '',
    ];
    const { multipleOf } = z.toJSONSchema(schema);
    return (
      [kind, ...bounds].filter((part) => part !== '').join(' ') +
      (multipleOf === undefined ? '' : `, a multiple of ${multipleOf}`)
    );
  }
  if (schema instanceof z.ZodArray) {
    const element = unwrap(schema.element).inner;
    if (element instanceof z.ZodObject) return 'list';
    const { minItems, maxItems } = z.toJSONSchema(schema);
    const lengths = minItems === undefined || maxItems === undefined ? '' : ` ${minItems} to ${maxItems}`;
    return `list of${lengths}: ${typeText(element)}`;
  }
  return schema instanceof z.ZodBoolean ? 'true | false' : 'text';
}
