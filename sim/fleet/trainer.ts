import type { BackendInfo } from '../../brain/predictor/backend.ts';
import type { FitRequest, FitResult } from '../../brain/predictor/fit.ts';
import { InThreadTrainer, type Trainer } from '../../brain/train.ts';
import type { SimClock } from './clock.ts';

/** What a round of training takes of virtual time: that of one core (measured: 64 steps of 256 rows in about 0.1 s). */
const ROUND_MS = 50;
const ROW_MS = 0.02;

/**
 * Trains for real, on a pinned backend, while virtual time stands still; the result comes when a core would have had
 * it.
 */
export class SimTrainer implements Trainer {
  private readonly inner: InThreadTrainer;
  private readonly clock: SimClock;

  constructor(clock: SimClock, inner: InThreadTrainer) {
    this.clock = clock;
    this.inner = inner;
  }

  start(): Promise<BackendInfo> {
    const started = this.inner.start();
    this.clock.settle(started);
    return started;
  }

  fit(request: FitRequest): Promise<FitResult> {
    const fitted = this.inner.fit(request);
    this.clock.settle(fitted);
    return new Promise((resolve, reject) => {
      fitted.then((result) => this.later(request.n, () => resolve(result)), reject);
    });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  private later(rows: number, done: () => void): void {
    this.clock.after(ROUND_MS + ROW_MS * rows, () => {
      done();
      this.clock.settle(Promise.resolve());
    });
  }
}
