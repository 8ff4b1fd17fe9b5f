import type { Rng } from '../../env.ts';

const TREES = 60;
const DEPTH = 5;
const LEARNING_RATE = 0.1;
/** Share of the rows, and of the features, that each tree sees. */
const SUBSAMPLE = 0.8;
const MIN_LEAF_ROWS = 5;
/** L2 term on leaves. */
const LAMBDA = 1;
const BINS = 64;
/** Rows whose quantiles make the edges of the bins. */
const EDGE_ROWS = 2048;

/** Inner nodes and leaves of a complete tree; the children of node i are 2i + 1 and 2i + 2. */
const INNER = 2 ** DEPTH - 1;
const LEAVES = 2 ** DEPTH;

/** Rows of `stride` floats, of which the first `features` are read, and their targets. */
export interface TreeSet {
  rows: Float32Array;
  targets: Float32Array;
  stride: number;
  features: number;
}

interface Tree {
  feature: Uint8Array;
  /** left if the feature's value is at most this; a node without a split sends everything left */
  threshold: Float32Array;
  leaf: Float32Array;
}

/** Gradient-boosted regression trees: a mean, and trees that correct it in turn. */
export class Trees {
  private readonly base: number;
  private readonly trees: readonly Tree[];

  constructor(base: number, trees: readonly Tree[]) {
    this.base = base;
    this.trees = trees;
  }

  predict(row: Float32Array): number {
    let sum = this.base;
    for (const tree of this.trees) {
      let node = 0;
      while (node < INNER)
        node = 2 * node + ((row[tree.feature[node] as number] as number) <= (tree.threshold[node] as number) ? 1 : 2);
      sum += tree.leaf[node - INNER] as number;
    }
    return sum;
  }
}

/**
 * Trains 60 trees of depth 5 on squared error, by histograms of 64 bins: learning rate 0.1, 0.8 of rows and features
 * per tree, at least 5 rows per leaf. Fewer and smaller than llm-d's 200 of depth 6 at 0.05, to be cheap enough beside
 * routing; the rate makes up for the number. Yields the rows of each slice: a feature's binning, or one tree.
 */
export function* trainTrees(set: TreeSet, rng: Rng): Generator<number, Trees> {
  const n = set.targets.length;
  const bins = new Uint8Array(n * set.features);
  const edges: Float32Array[] = [];
  for (let f = 0; f < set.features; f++) {
    edges.push(binFeature(set, f, bins));
    yield n;
  }
  const residuals = new Float32Array(n);
  const sum = set.targets.reduce((total, target) => total + target, 0);
  const base = n > 0 ? sum / n : 0;
  for (let i = 0; i < n; i++) residuals[i] = (set.targets[i] as number) - base;
  const grower = new Grower(set.features, bins, edges, residuals);
  const trees: Tree[] = [];
  for (let t = 0; t < TREES; t++) {
    trees.push(grower.grow(rng));
    yield n;
  }
  return new Trees(base, trees);
}

/** Fills the column of bins of a feature; a bin holds values up to its edge. Returns the edges, ascending. */
function binFeature({ rows, targets, stride, features }: TreeSet, feature: number, bins: Uint8Array): Float32Array {
  const n = targets.length;
  const step = Math.max(1, Math.floor(n / EDGE_ROWS));
  const sample = new Float32Array(Math.ceil(n / step));
  for (let i = 0; i < sample.length; i++) sample[i] = rows[i * step * stride + feature] as number;
  sample.sort();
  const distinct: number[] = [];
  for (let b = 1; b < BINS; b++) {
    const edge = sample[Math.min(sample.length - 1, Math.floor((b * sample.length) / BINS))] as number;
    if (distinct.at(-1) !== edge) distinct.push(edge);
  }
  for (let i = 0; i < n; i++) {
    const value = rows[i * stride + feature] as number;
    let low = 0;
    let high = distinct.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((distinct[middle] as number) < value) low = middle + 1;
      else high = middle;
    }
    bins[i * features + feature] = low;
  }
  return Float32Array.from(distinct);
}

/** Grows trees level by level, and keeps the residuals that the next tree is to explain. */
class Grower {
  private readonly features: number;
  private readonly bins: Uint8Array;
  private readonly edges: readonly Float32Array[];
  private readonly residuals: Float32Array;
  /** node of each row */
  private readonly nodes: Uint8Array;
  private readonly sampled: Uint8Array;
  private readonly used: Uint8Array;
  private readonly splitBin = new Uint8Array(INNER);
  /** by node of the level, feature and bin */
  private readonly sums: Float64Array;
  private readonly counts: Int32Array;

  constructor(features: number, bins: Uint8Array, edges: readonly Float32Array[], residuals: Float32Array) {
    this.features = features;
    this.bins = bins;
    this.edges = edges;
    this.residuals = residuals;
    this.nodes = new Uint8Array(residuals.length);
    this.sampled = new Uint8Array(residuals.length);
    this.used = new Uint8Array(features);
    this.sums = new Float64Array((LEAVES / 2) * features * BINS);
    this.counts = new Int32Array((LEAVES / 2) * features * BINS);
  }

  grow(rng: Rng): Tree {
    const tree: Tree = {
      feature: new Uint8Array(INNER),
      threshold: new Float32Array(INNER).fill(Infinity),
      leaf: new Float32Array(LEAVES),
    };
    for (let i = 0; i < this.sampled.length; i++) this.sampled[i] = rng() < SUBSAMPLE ? 1 : 0;
    for (let f = 0; f < this.features; f++) this.used[f] = rng() < SUBSAMPLE ? 1 : 0;
    this.nodes.fill(0);
    this.splitBin.fill(BINS);
    for (let depth = 0; depth < DEPTH; depth++) {
      const first = 2 ** depth - 1;
      this.fillHistograms(first, 2 ** depth);
      for (let node = first; node < 2 * first + 1; node++)
        this.split(tree, node, (node - first) * this.features * BINS);
      this.descend(tree);
    }
    this.fillLeaves(tree);
    return tree;
  }

  private fillHistograms(first: number, count: number): void {
    const { features, bins, nodes, residuals, sums, counts, used } = this;
    sums.fill(0, 0, count * features * BINS);
    counts.fill(0, 0, count * features * BINS);
    for (let i = 0; i < nodes.length; i++) {
      if (this.sampled[i] === 0) continue;
      const residual = residuals[i] as number;
      const at = ((nodes[i] as number) - first) * features * BINS;
      for (let f = 0; f < features; f++) {
        if (used[f] === 0) continue;
        const cell = at + f * BINS + (bins[i * features + f] as number);
        sums[cell] = (sums[cell] as number) + residual;
        counts[cell] = (counts[cell] as number) + 1;
      }
    }
  }

  /** Gives the node the split that lowers the squared error most, if any does. */
  private split(tree: Tree, node: number, at: number): void {
    let bestGain = 1e-9;
    for (let f = 0; f < this.features; f++) {
      if (this.used[f] === 0) continue;
      const from = at + f * BINS;
      let total = 0;
      let rows = 0;
      for (let b = 0; b < BINS; b++) {
        total += this.sums[from + b] as number;
        rows += this.counts[from + b] as number;
      }
      const edges = this.edges[f] as Float32Array;
      let left = 0;
      let leftRows = 0;
      for (let b = 0; b < edges.length; b++) {
        left += this.sums[from + b] as number;
        leftRows += this.counts[from + b] as number;
        if (leftRows < MIN_LEAF_ROWS || rows - leftRows < MIN_LEAF_ROWS) continue;
        const right = total - left;
        const gain =
          (left * left) / (leftRows + LAMBDA) +
          (right * right) / (rows - leftRows + LAMBDA) -
          (total * total) / (rows + LAMBDA);
        if (gain <= bestGain) continue;
        bestGain = gain;
        tree.feature[node] = f;
        tree.threshold[node] = edges[b] as number;
        this.splitBin[node] = b;
      }
    }
  }

  private descend(tree: Tree): void {
    const { nodes, bins, features, splitBin } = this;
    for (let i = 0; i < nodes.length; i++) {
      const node = nodes[i] as number;
      nodes[i] =
        2 * node +
        ((bins[i * features + (tree.feature[node] as number)] as number) <= (splitBin[node] as number) ? 1 : 2);
    }
  }

  private fillLeaves(tree: Tree): void {
    const { nodes, residuals } = this;
    const rows = new Int32Array(LEAVES);
    const sums = new Float64Array(LEAVES);
    for (let i = 0; i < nodes.length; i++) {
      if (this.sampled[i] === 0) continue;
      const leaf = (nodes[i] as number) - INNER;
      rows[leaf]! += 1;
      sums[leaf]! += residuals[i] as number;
    }
    for (let leaf = 0; leaf < LEAVES; leaf++)
      tree.leaf[leaf] = (LEARNING_RATE * (sums[leaf] as number)) / ((rows[leaf] as number) + LAMBDA);
    for (let i = 0; i < nodes.length; i++)
      residuals[i] = (residuals[i] as number) - (tree.leaf[(nodes[i] as number) - INNER] as number);
  }
}
