import type { Rng } from '../../env.ts';

/** Centres found per slice. */
const SLICE_CENTRES = 4;

/**
 * Greedy k-centre by cosine distance: starts at random, then takes again and again the row that is farthest from all
 * taken. `vectors` holds rows of `dimension` floats and is normalised in place. Yields the distances of each slice;
 * returns the indices of at most `k` rows.
 */
export function* kCentre(vectors: Float32Array, dimension: number, k: number, rng: Rng): Generator<number, number[]> {
  const n = vectors.length / dimension;
  normalise(vectors, dimension);
  yield n;
  const nearest = new Float32Array(n).fill(Infinity);
  const taken: number[] = [];
  let next = Math.min(n - 1, Math.floor(rng() * n));
  while (taken.length < Math.min(k, n)) {
    taken.push(next);
    nearest[next] = -Infinity;
    const centre = next * dimension;
    let farthest = -Infinity;
    for (let row = 0; row < n; row++) {
      if (nearest[row] === -Infinity) continue;
      let dot = 0;
      const at = row * dimension;
      for (let i = 0; i < dimension; i++) dot += (vectors[centre + i] as number) * (vectors[at + i] as number);
      const distance = Math.min(nearest[row] as number, 1 - dot);
      nearest[row] = distance;
      if (distance > farthest) {
        farthest = distance;
        next = row;
      }
    }
    if (taken.length % SLICE_CENTRES === 0) yield SLICE_CENTRES * n;
  }
  return taken;
}

function normalise(vectors: Float32Array, dimension: number): void {
  for (let at = 0; at < vectors.length; at += dimension) {
    let squares = 0;
    for (let i = 0; i < dimension; i++) squares += (vectors[at + i] as number) ** 2;
    const length = Math.sqrt(squares) || 1;
    for (let i = 0; i < dimension; i++) vectors[at + i] = (vectors[at + i] as number) / length;
  }
}
