import { createHmac, timingSafeEqual } from 'node:crypto';

/** Marks a request that an entry has already routed: the door delivers it and never routes it again. */
export const HOP_HEADER = 'x-lodestar-hop';
/** What the entry of a hop has read of the body, so that its door need not; believed only beside a good hop header. */
export const READ_HEADER = 'x-lodestar-read';
/** A door's load report, base64 of its encoded form, on every answer to a hop. */
export const REPORT_HEADER = 'x-lodestar-report';
/**
 * A door's own failure (not its engine's answer), by one of the names in ending.ts, so that the entry may try
 * elsewhere.
 */
export const FAILURE_HEADER = 'x-lodestar-failure';
/**
 * On an answer: the door has asked for the stream's usage, which the client did not ask for, so it is not for the
 * client.
 */
export const USAGE_HEADER = 'x-lodestar-usage';
/** Header names that only agents say to one another: stripped from clients and from answers to them. */
export const INTERNAL_HEADERS: ReadonlySet<string> = new Set([
  HOP_HEADER,
  READ_HEADER,
  REPORT_HEADER,
  FAILURE_HEADER,
  USAGE_HEADER,
]);

export interface Hop {
  instance: string;
  entry: string;
  epoch: number;
  seq: number;
  /**
   * the entry asks for its attempts once a second while they run (attempt-list.ts): its silence means that it is gone
   */
  watched: boolean;
}

const WATCHED = 'watched';

/** `instance,entry,epoch,seq,watched,mac` with a MAC by the fleet's token. */
export function signHop(hop: Hop, token: string): string {
  const text = `${hop.instance},${hop.entry},${hop.epoch},${hop.seq}${hop.watched ? `,${WATCHED}` : ''}`;
  return `${text},${mac(text, token)}`;
}

/**
 * The hop that a header states, or undefined if its MAC is not the fleet's, or its numbers are none that count
 * requests.
 */
export function openHop(header: string, token: string): Hop | undefined {
  const cut = header.lastIndexOf(',');
  const text = header.slice(0, cut);
  const given = Buffer.from(header.slice(cut + 1));
  const right = Buffer.from(mac(text, token));
  if (given.length !== right.length || !timingSafeEqual(given, right)) return undefined;
  const [instance, entry, epochText = '', seqText = '', watched] = text.split(',');
  const epoch = countOf(epochText);
  const seq = countOf(seqText);
  if (!instance || !entry || epoch === undefined || seq === undefined) return undefined;
  return { instance, entry, epoch, seq, watched: watched === WATCHED };
}

function countOf(text: string): number | undefined {
  const value = Number(text);
  return /^\d+$/.test(text) && Number.isSafeInteger(value) ? value : undefined;
}

function mac(text: string, token: string): string {
  return createHmac('sha256', token).update(text).digest('base64url').slice(0, 27);
}
