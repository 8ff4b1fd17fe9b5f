import { describe, expect, test } from 'vitest';
import {
  ANSWER_ENDINGS,
  type Elsewhere,
  type Ending,
  type Facts,
  judge,
  OWN_ENDINGS,
} from '../../../agent/entry/culprit.ts';
import { FAILURES } from '../../../agent/wire/ending.ts';
import { codeIn, readPage, rows, section } from '../../docs/pages.ts';

const ENDINGS: readonly Ending[] = [...ANSWER_ENDINGS, ...FAILURES, ...OWN_ENDINGS];
const ELSEWHERE: readonly Elsewhere[] = ['unknown', 'alike', 'well'];
const TRUTH = [true, false];

/** What the words in the column "if" ask of the facts. */
const CONDITIONS: Record<string, (facts: Facts) => boolean> = {
  always: () => true,
  local: ({ remote }) => !remote,
  remote: ({ remote }) => remote,
  works: ({ works }) => works,
  'does not work': ({ works }) => !works,
  'alike elsewhere': ({ elsewhere }) => elsewhere === 'alike',
  'unknown elsewhere': ({ elsewhere }) => elsewhere === 'unknown',
  'well elsewhere': ({ elsewhere }) => elsewhere === 'well',
};

const table = rows(section(readPage('docs/request-lifecycle.md'), '## Whose fault')).map(
  ([ending = '', condition = '', culprit = '', breaker = '', retry = '', outcome = '']) => ({
    ending: codeIn(ending)[0],
    conditions: condition.split(', '),
    culprit: codeIn(culprit)[0],
    breaker: codeIn(breaker)[0],
    retry,
    outcome: codeIn(outcome)[0],
  }),
);

const combinations: Facts[] = ENDINGS.flatMap((ending) =>
  ELSEWHERE.flatMap((elsewhere) =>
    TRUTH.flatMap((begun) =>
      TRUTH.flatMap((remote) => TRUTH.map((works) => ({ ending, elsewhere, begun, remote, works }))),
    ),
  ),
);

describe('the table of docs/request-lifecycle.md', () => {
  test('asks only for what the facts tell', () => {
    for (const { conditions } of table) for (const one of conditions) expect(Object.keys(CONDITIONS)).toContain(one);
  });

  test('has one row for every combination, and it says what the code decides', () => {
    expect(combinations).toHaveLength(ENDINGS.length * 24);
    for (const facts of combinations) {
      const matching = table.filter(
        ({ ending, conditions }) => ending === facts.ending && conditions.every((one) => CONDITIONS[one]?.(facts)),
      );
      expect(matching, JSON.stringify(facts)).toHaveLength(1);
      const [{ culprit, breaker, retry, outcome } = { culprit: '', breaker: '', retry: '', outcome: '' }] = matching;
      expect(judge(facts), JSON.stringify(facts)).toEqual({
        culprit,
        breaker,
        outcome,
        retry: retry === 'unless begun' && !facts.begun,
      });
    }
  });
});
