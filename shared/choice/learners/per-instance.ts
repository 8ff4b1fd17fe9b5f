/** Most instances that state is kept of; beyond, the one that was met first is forgotten. */
const MAX_INSTANCES = 4096;

/** State by instance id, made when an instance is first met. Bounded, as instances come and go over months. */
export class PerInstance<T> {
  private readonly make: () => T;
  private readonly states = new Map<string, T>();

  constructor(make: () => T) {
    this.make = make;
  }

  /** The state of an instance if it was met. */
  peek(instance: string): T | undefined {
    return this.states.get(instance);
  }

  of(instance: string): T {
    let state = this.states.get(instance);
    if (state === undefined) {
      if (this.states.size >= MAX_INSTANCES) {
        const first = this.states.keys().next();
        if (!first.done) this.states.delete(first.value);
      }
      state = this.make();
      this.states.set(instance, state);
    }
    return state;
  }
}
