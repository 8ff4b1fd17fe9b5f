import type { InstanceReport } from '../shared/instance.ts';
import { boundNames, NARROW_NAME_BOUNDS } from '../shared/report.ts';
import type { RosterEntry } from '../shared/table.ts';

/** Bytes of a table that its roster may take. */
export const ROSTER_MAX_BYTES = 4 * 1024 * 1024;
/** Field names of an entry, and the heads of its texts. */
const ENTRY_BYTES = 64;
const NAME_BYTES = 3;

/** An instance as tables list it: with no more names than agents of every version take. */
export function rosterEntry({ instance, agent, doorUrl, models, kind }: InstanceReport): RosterEntry {
  return { instance, agent, doorUrl, models: boundNames(models, NARROW_NAME_BOUNDS), kind };
}

/** Whether two entries say the same. */
export function isSameEntry(a: RosterEntry, b: RosterEntry): boolean {
  return (
    a.doorUrl === b.doorUrl &&
    a.kind === b.kind &&
    a.agent === b.agent &&
    a.models.length === b.models.length &&
    a.models.every((name, i) => name === b.models[i])
  );
}

/**
 * The roster in no more than `maxBytes`: where all names do not fit, each entry has an equal share for the first of its
 * own; where even entries without names do not, the last ones are left out. Agents hear of the rest by reports.
 */
export function fitRoster(roster: readonly RosterEntry[], maxBytes: number = ROSTER_MAX_BYTES): RosterEntry[] {
  let bare = 0;
  let names = 0;
  const fitting: RosterEntry[] = [];
  for (const entry of roster) {
    bare +=
      ENTRY_BYTES +
      textBytes(entry.instance) +
      textBytes(entry.agent) +
      textBytes(entry.doorUrl) +
      textBytes(entry.kind);
    if (bare > maxBytes) break;
    fitting.push(entry);
    for (const name of entry.models) names += NAME_BYTES + textBytes(name);
  }
  if (bare + names <= maxBytes) return fitting;
  const share = Math.max(0, maxBytes - bare) / Math.max(1, fitting.length);
  return fitting.map((entry) => {
    let left = share;
    const kept = entry.models.findIndex((name) => (left -= NAME_BYTES + textBytes(name)) < 0);
    return kept < 0 ? entry : { ...entry, models: entry.models.slice(0, kept) };
  });
}

function textBytes(text: string): number {
  return Buffer.byteLength(text);
}
