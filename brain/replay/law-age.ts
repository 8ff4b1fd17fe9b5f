import { isOutdatedLaw } from '../../shared/predictor/law-age.ts';
import type { Experience } from './experience.ts';

const INSTANCES_MAX = 4096;

/**
 * Knows which residuals are those of a law that is no longer in force. While an instance is new its law is refitted
 * every second, and a net that learns how wrong the first one was repeats a correction that the law has made meanwhile.
 * A law that never sees a step (no answer is streamed) stays what it is, and its residuals count.
 */
export class LawAge {
  private readonly newest = new Map<string, { atWallMs: number; samples: number }>();

  /** `atWallMs`: when the sample's request was dispatched. */
  note({ instance, lawSamples }: Experience, atWallMs: number): void {
    const known = this.newest.get(instance);
    if (known && known.atWallMs > atWallMs) return;
    this.newest.delete(instance);
    this.newest.set(instance, { atWallMs, samples: lawSamples });
    if (this.newest.size > INSTANCES_MAX) this.newest.delete(this.newest.keys().next().value as string);
  }

  /** The instance's law has seen more than twice as many steps since. */
  isOutdated({ instance, lawSamples }: Experience): boolean {
    return isOutdatedLaw(lawSamples, this.newest.get(instance)?.samples ?? 0);
  }
}
