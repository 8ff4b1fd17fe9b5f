import type { DeliveryId, OpenAttempt } from '../../agent/door/open-attempts.ts';
import type { AttemptFailure, Failure } from '../../agent/wire/ending.ts';

/** An attempt in flight at an engine; `failures` has what it was ended with. */
export interface FakeAttempt extends OpenAttempt {
  sentMs: number;
  lastByteMs: number;
  paused: boolean;
  pausedUntilMs: number;
  readonly failures: Failure[];
}

/** One that was sent at 0 and has got nothing yet. */
export function openAttempt(
  changes: Partial<Omit<OpenAttempt, 'id' | 'end'>> & { id?: Partial<DeliveryId> } = {},
): FakeAttempt {
  const { id, ...rest } = changes;
  const failures: Failure[] = [];
  const sentMs = rest.sentMs ?? 0;
  return {
    instance: 'i',
    lastByteMs: sentMs,
    forecastMs: sentMs,
    sequences: 1,
    stream: true,
    paused: false,
    pausedUntilMs: -Infinity,
    ...rest,
    id: { entry: 'e', epoch: 1, seq: 1, watched: true, ...id },
    sentMs,
    failures,
    end: ({ failure }: AttemptFailure) => void failures.push(failure),
  };
}
