/** A regression y ≈ Σ w_j·x_j with w_j ≥ 0: least squares with exponential forgetting, shrunk towards a prior. */
export class ForgettingFit {
  private readonly n: number;
  private readonly keep: number;
  private readonly a: Float64Array;
  private readonly b: Float64Array;
  private readonly scales: readonly number[];
  private readonly shrinkage: number;
  weights: number[];
  samples = 0;
  /** sum of the observations' weights, forgotten like them */
  private weightSum = 0;

  /**
   * `window`: observations after which the weight of one has fallen to 1/e. `scales`: typical size of each x, which
   * makes the shrinkage equal to `shrinkage` observations at that size.
   */
  constructor(prior: readonly number[], scales: readonly number[], window: number, shrinkage: number) {
    this.n = prior.length;
    this.keep = 1 - 1 / window;
    this.a = new Float64Array(this.n * this.n);
    this.b = new Float64Array(this.n);
    this.scales = scales;
    this.shrinkage = shrinkage;
    this.weights = [...prior];
  }

  predict(x: readonly number[]): number {
    let y = 0;
    for (let i = 0; i < this.n; i++) y += (this.weights[i] as number) * (x[i] as number);
    return y;
  }

  add(x: readonly number[], y: number, weight: number): void {
    const { n, a, b, keep } = this;
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++)
        a[i * n + j] = (a[i * n + j] as number) * keep + weight * (x[i] as number) * (x[j] as number);
      b[i] = (b[i] as number) * keep + weight * (x[i] as number) * y;
    }
    this.samples = this.samples * keep + 1;
    this.weightSum = this.weightSum * keep + weight;
  }

  /**
   * Takes every observation so far to have lasted `factor` times as long (its weight falls with the square), and keeps
   * `share` of them.
   */
  rescale(factor: number, share: number): void {
    for (let i = 0; i < this.a.length; i++) this.a[i] = ((this.a[i] as number) * share) / (factor * factor);
    for (let i = 0; i < this.n; i++) {
      this.b[i] = ((this.b[i] as number) * share) / factor;
      this.weights[i] = (this.weights[i] as number) * factor;
    }
    this.samples *= share;
    this.weightSum *= share / (factor * factor);
  }

  /**
   * Solves for the weights; a negative one is set to zero and the rest solved again. `prior` is what the shrinkage
   * pulls towards.
   */
  solve(prior: readonly number[]): void {
    if (this.weightSum <= 0) {
      prior.forEach((w, i) => (this.weights[i] = w));
      return;
    }
    const active = prior.map((_, i) => i);
    for (;;) {
      const solution = this.solveActive(active, prior);
      const worst = solution.reduce((at, w, k) => (w < (at < 0 ? 0 : (solution[at] as number)) ? k : at), -1);
      if (worst < 0 || active.length === 1) {
        this.weights.fill(0);
        active.forEach((i, k) => (this.weights[i] = Math.max(0, solution[k] as number)));
        return;
      }
      active.splice(worst, 1);
    }
  }

  private solveActive(active: readonly number[], prior: readonly number[]): number[] {
    const m = active.length;
    const meanWeight = this.weightSum / this.samples;
    const rows = active.map((i) => {
      const ridge = this.shrinkage * meanWeight * (this.scales[i] as number) ** 2;
      const row = active.map((j) => (this.a[i * this.n + j] as number) + (i === j ? ridge : 0));
      row.push((this.b[i] as number) + ridge * (prior[i] as number));
      return row;
    });
    return gauss(rows, m);
  }
}

/** Solves a small dense system, rows = [A | b], with partial pivoting. The ridge keeps A regular. */
function gauss(rows: number[][], m: number): number[] {
  for (let col = 0; col < m; col++) {
    let pivot = col;
    for (let r = col + 1; r < m; r++) if (Math.abs(rows[r]?.[col] ?? 0) > Math.abs(rows[pivot]?.[col] ?? 0)) pivot = r;
    [rows[col], rows[pivot]] = [rows[pivot] as number[], rows[col] as number[]];
    const head = rows[col] as number[];
    for (let r = col + 1; r < m; r++) {
      const row = rows[r] as number[];
      const factor = (row[col] as number) / (head[col] as number);
      for (let k = col; k <= m; k++) row[k] = (row[k] as number) - factor * (head[k] as number);
    }
  }
  const x = Array.from({ length: m }, () => 0);
  for (let r = m - 1; r >= 0; r--) {
    const row = rows[r] as number[];
    let y = row[m] as number;
    for (let k = r + 1; k < m; k++) y -= (row[k] as number) * (x[k] as number);
    x[r] = y / (row[r] as number);
  }
  return x;
}
