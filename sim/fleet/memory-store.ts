import type { BrainStore, CredentialBinding, PolicyChoice, StoredSample, StoreStatus } from '../../brain/store.ts';
import type { RoutingTable, SealedTable } from '../../shared/table.ts';

/** The brain's store without a disk: a simulated brain starts with nothing and forgets everything at the end. */
export class MemoryStore implements BrainStore {
  private version = 0;
  private choice: PolicyChoice | null = null;
  private readonly bindings = new Map<string, CredentialBinding>();

  lastTable(): { sealed: SealedTable; table: RoutingTable } | null {
    return null;
  }

  saveTable(_sealed: SealedTable, version: number): void {
    this.version = version;
  }

  lastVersion(): number {
    return this.version;
  }

  nextEpoch(wallMs: number): number {
    return wallMs;
  }

  salt(): string {
    return '00'.repeat(32);
  }

  policy(): PolicyChoice | null {
    return this.choice;
  }

  savePolicy(choice: PolicyChoice): void {
    this.choice = choice;
  }

  binding(agent: string): CredentialBinding | null {
    return this.bindings.get(agent) ?? null;
  }

  saveBinding(agent: string, binding: CredentialBinding): void {
    this.bindings.set(agent, binding);
  }

  appendSamples(): Promise<void> {
    return Promise.resolve();
  }

  *samplesSince(): Generator<StoredSample> {}

  pruneSamples(): Promise<void> {
    return Promise.resolve();
  }

  status(): StoreStatus {
    return { ok: true, problem: null, sinceWallMs: null };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
