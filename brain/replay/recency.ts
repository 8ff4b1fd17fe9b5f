import type { Experience } from './experience.ts';

/** The newest samples, in order of arrival. */
export class RecencyPool {
  private readonly max: number;
  private items: Experience[] = [];
  /** items before this one have left: the array is cut only now and then */
  private head = 0;

  constructor(max: number) {
    this.max = max;
  }

  get size(): number {
    return this.items.length - this.head;
  }

  /** Adds one; returns the one that had to leave for it. */
  add(experience: Experience): Experience | undefined {
    this.items.push(experience);
    return this.size > this.max ? this.shift() : undefined;
  }

  prune(beforeMs: number): void {
    while (this.size > 0 && (this.items[this.head] as Experience).arrivedMs < beforeMs) this.shift();
  }

  /** The newest `max`, oldest first. */
  newest(max: number): Experience[] {
    return this.items.slice(Math.max(this.head, this.items.length - max));
  }

  private shift(): Experience {
    const gone = this.items[this.head++] as Experience;
    if (this.head > this.max) {
      this.items = this.items.slice(this.head);
      this.head = 0;
    }
    return gone;
  }
}
