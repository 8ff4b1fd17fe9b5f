import { ms, percent } from './demo/text.ts';
import type { StatusPage } from './status-page.ts';

type Row = readonly string[];

/** The fleet as an agent sees it: the agent, what routes and why, one line for each instance. */
export function statusText(page: StatusPage): string {
  const rows = page.instances.map(({ instance, health, draining, ledger, limits, breaker, ageMs, linkMs, kind }) => [
    instance,
    draining ? `${health}, draining` : health,
    count(ledger?.inFlight),
    count(ledger?.waiting),
    percent(ledger?.usedTokens ?? 0, limits?.kvTokens ?? 0),
    breaker,
    ageMs === null ? '-' : `${ms(ageMs)} ms`,
    `${ms(linkMs)} ms`,
    kind ?? '-',
  ]);
  return [
    ...head(page),
    '',
    ...table(
      ['INSTANCE', 'HEALTH', 'IN FLIGHT', 'WAITING', 'KV IN USE', 'BREAKER', 'AGE', 'LINK', 'KIND'],
      rows,
      'no instance is known: give the agent one with --vllm, or a brain with --brain-url',
    ),
  ].join('\n');
}

/** What is known of every prefix cache, here and at its door, where that comes from, and how right it was. */
export function cacheText(page: StatusPage): string {
  const rows = page.instances.map(({ instance, cachedBlocks, cache }) => [
    instance,
    count(cachedBlocks),
    count(cache?.blocks),
    cache?.source ?? 'unknown',
    cache && cache.checked > 0 ? percent(cache.hitRatio, 1) : '-',
    cache && cache.checked > 0 ? percent(cache.accuracyRatio, 1) : '-',
    count(cache?.checked),
    count(cache?.offloadedBlocks),
  ]);
  const problems = page.instances.flatMap(({ instance, cache }) =>
    cache && cache.problem !== '' ? [`${instance}: ${cache.source}, since ${cache.problem}`] : [],
  );
  const untold = page.instances
    .filter(({ cache }) => cache === null)
    .map(({ instance }) => `${instance}: its door has told nothing of its cache yet, or is of an earlier version`);
  return [
    ...head(page),
    `index of all caches: ${count(page.cacheIndexBlocks)} prefix blocks`,
    '',
    ...table(
      ['INSTANCE', 'BLOCKS HERE', 'AT ITS DOOR', 'SOURCE', 'HIT RATIO', 'ACCURACY', 'CHECKED', '2ND TIER'],
      rows,
      'no instance is known',
    ),
    ...[...problems, ...untold].flatMap((line, i) => (i === 0 ? ['', line] : [line])),
  ].join('\n');
}

function head({ agent, version, draining, inFlight, brain, routing }: StatusPage): string[] {
  const linked = brain.connected
    ? `brain ${brain.url}`
    : brain.url === ''
      ? 'no brain'
      : `brain ${brain.url} not connected: ${brain.lastError ?? 'unknown'}`;
  const age = routing.tableAgeMs === null ? '' : `, ${Math.round(routing.tableAgeMs / 1000)} s old`;
  const tableName = routing.tableVersion === null ? 'no table' : `table ${routing.tableVersion}${age}`;
  return [
    `agent ${agent} ${version}${draining ? ', draining' : ''}: ${inFlight} in flight; ${linked}`,
    `routing by ${routing.policy} (${routing.reason}), objective ${routing.objective}, ${tableName}`,
  ];
}

/** Columns as wide as their widest cell; numbers are short enough to stand at the left. */
function table(titles: Row, rows: readonly Row[], empty: string): string[] {
  if (rows.length === 0) return [empty];
  const widths = titles.map((title, i) => Math.max(title.length, ...rows.map((row) => (row[i] as string).length)));
  return [titles, ...rows].map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] as number))
      .join('  ')
      .trimEnd(),
  );
}

/** With a comma every three digits; a dash where there is none. */
function count(value: number | undefined): string {
  return value === undefined ? '-' : value.toLocaleString('en-US');
}
