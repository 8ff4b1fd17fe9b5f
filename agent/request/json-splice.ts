/** A change of a body's bytes: those from `start` up to `end` become `text`. */
export interface Splice {
  start: number;
  end: number;
  text: string;
}

/** A body with one change, every other byte as the client sent it. The rest is neither copied nor joined. */
export function spliced(body: readonly Buffer[], splice: Splice | undefined): readonly Buffer[] {
  if (!splice) return body;
  const before: Buffer[] = [];
  const after: Buffer[] = [];
  let offset = 0;
  for (const piece of body) {
    if (offset < splice.start) before.push(piece.subarray(0, splice.start - offset));
    if (offset + piece.length > splice.end) after.push(piece.subarray(Math.max(0, splice.end - offset)));
    offset += piece.length;
  }
  return [...before, Buffer.from(splice.text), ...after];
}
