import type { EngineRequest } from './request.ts';

export type SchedulingPolicy = 'fcfs' | 'priority';

/**
 * Requests waiting for admission. FCFS keeps arrival order, with preempted requests put back in front; the priority
 * policy orders by (priority, arrival), preempted requests included.
 */
export class WaitingQueue {
  private readonly policy: SchedulingPolicy;
  private items: EngineRequest[] = [];
  private head = 0;

  constructor(policy: SchedulingPolicy) {
    this.policy = policy;
  }

  get size(): number {
    return this.items.length - this.head;
  }

  /** All that wait, first in line first. */
  list(): EngineRequest[] {
    return this.items.slice(this.head);
  }

  peek(): EngineRequest | undefined {
    return this.items[this.head];
  }

  shift(): void {
    this.head++;
    if (this.head > 64 && this.head * 2 > this.items.length) {
      this.items = this.items.slice(this.head);
      this.head = 0;
    }
  }

  push(request: EngineRequest): void {
    if (this.policy === 'fcfs') this.items.push(request);
    else this.insertSorted(request);
  }

  putBack(request: EngineRequest): void {
    if (this.policy === 'priority') this.insertSorted(request);
    else if (this.head > 0) this.items[--this.head] = request;
    else this.items.unshift(request);
  }

  remove(request: EngineRequest): void {
    const at = this.items.indexOf(request, this.head);
    if (at >= 0) this.items.splice(at, 1);
  }

  private insertSorted(request: EngineRequest): void {
    let low = this.head;
    let high = this.items.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isBefore(this.items[middle]!, request)) low = middle + 1;
      else high = middle;
    }
    this.items.splice(low, 0, request);
  }
}

function isBefore(a: EngineRequest, b: EngineRequest): boolean {
  return a.priority < b.priority || (a.priority === b.priority && a.arrival < b.arrival);
}
