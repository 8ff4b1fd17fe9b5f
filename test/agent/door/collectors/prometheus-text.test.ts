import { expect, it } from 'vitest';
import { parsePrometheus } from '../../../../agent/door/collectors/prometheus-text.ts';

it('reads labels as a set, escapes, special values, timestamps and exemplars', () => {
  const { samples } = parsePrometheus(
    [
      '# HELP a x',
      'a{b="1",c="x\\"y\\\\z\\n,}"} 2 1700000000',
      'a 3',
      'a{} +Inf',
      'a{b="2",} -Inf',
      'd NaN',
      'e{le="1"} 5 # {id="q"} 1 2',
      '# EOF',
    ].join('\n'),
  );
  expect(samples.get('a')).toEqual([
    { labels: { b: '1', c: 'x"y\\z\n,}' }, value: 2 },
    { labels: {}, value: 3 },
    { labels: {}, value: Infinity },
    { labels: { b: '2' }, value: -Infinity },
  ]);
  expect(samples.get('d')?.[0]?.value).toBeNaN();
  expect(samples.get('e')).toEqual([{ labels: { le: '1' }, value: 5 }]);
});

it('skips creation times, unwanted names and lines it cannot read', () => {
  const text = 'a_created 1\nb 2\nc 3\nb{x="1 4\nb{x=1} 4\nb{x="1"} four\nb\n\n';
  expect([...parsePrometheus(text, new Set(['b'])).samples]).toEqual([['b', [{ labels: {}, value: 2 }]]]);
});

it('knows a histogram by its declared type, whatever its suffix', () => {
  const { types, samples } = parsePrometheus(
    '# TYPE vllm:iteration_tokens_total histogram\nvllm:iteration_tokens_total_sum{engine="0"} 306.0\n# TYPE vllm:x_total counter\n',
  );
  expect(types.get('vllm:iteration_tokens_total')).toBe('histogram');
  expect(types.get('vllm:x_total')).toBe('counter');
  expect(samples.has('vllm:iteration_tokens_total')).toBe(false);
});
