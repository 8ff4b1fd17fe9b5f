import type { EntrySeen } from '../../shared/instance.ts';

/** Entries remembered; the one unheard of for longest leaves. */
const MAX_ENTRIES = 256;
/**
 * How far behind the newest sequence number one may be and still be told apart: the bitmap of 32, and the one before
 * it.
 */
const SPAN = 33;

/**
 * Which requests of which entry a door has counted: a contiguous sequence and a bitmap of 32 later ones, per entry
 * boot. An entry numbers its requests per instance, so that a door sees them without gaps.
 */
export class SeenTracker {
  private readonly entries = new Map<string, EntrySeen>();

  /** `epoch` and `seq` are whole numbers from 0; others are ignored. */
  note(entry: string, epoch: number, seq: number): void {
    if (!isCount(epoch) || !isCount(seq)) return;
    const known = this.entries.get(entry);
    if (known && known.epoch > epoch) return;
    // Of an entry met in the middle of its count, all below the bitmap is taken as seen: those requests are long over.
    const seen = known?.epoch === epoch ? known : { entry, epoch, upTo: Math.max(-1, seq - SPAN), later: 0 };
    // Re-inserting keeps the map in order of last use.
    this.entries.delete(entry);
    this.entries.set(entry, seen);
    advance(seen, seq);
    if (this.entries.size > MAX_ENTRIES) this.entries.delete(this.entries.keys().next().value as string);
  }

  list(): EntrySeen[] {
    return [...this.entries.values()].map((seen) => ({ ...seen }));
  }
}

function advance(seen: EntrySeen, seq: number): void {
  // All that the bitmap holds is left behind, whatever it is.
  if (seq - seen.upTo > 2 * SPAN) {
    seen.upTo = seq - SPAN;
    seen.later = 0;
  }
  // A hop that failed on the way leaves a gap for ever: once the bitmap is full, the oldest gap counts as seen.
  while (seq - seen.upTo > SPAN) fillGap(seen);
  if (seq === seen.upTo + 1) fillGap(seen);
  else if (seq > seen.upTo) seen.later = (seen.later | (1 << (seq - seen.upTo - 2))) >>> 0;
}

/** `upTo + 1` is seen now: moves the base over it and over those behind it that the bitmap already holds. */
function fillGap(seen: EntrySeen): void {
  let next: number;
  do {
    seen.upTo += 1;
    next = seen.later & 1;
    seen.later >>>= 1;
  } while (next === 1);
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}
