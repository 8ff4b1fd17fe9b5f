import { describe, expect, test } from 'vitest';
import { AnswerText } from '../../../../agent/door/cache/answer-text.ts';

const CHAT = '/v1/chat/completions';
const COMPLETIONS = '/v1/completions';

/** Text of an answer by its events. */
function textOf(path: string, events: (string | Buffer)[]): string | undefined {
  const answer = AnswerText.of(path, 1)!;
  for (const event of events) answer.push(Buffer.from(event));
  return answer.text()?.toString();
}

const delta = (content: string): string =>
  JSON.stringify({ id: 'c', choices: [{ index: 0, delta: { content }, finish_reason: null }] });

describe('the text of an answer', () => {
  test('of a chat comes back behind its role', () => {
    expect(
      textOf(CHAT, [
        JSON.stringify({ choices: [{ delta: { role: 'assistant', content: '' } }] }),
        delta('Hel'),
        delta('lo'),
        '[DONE]',
      ]),
    ).toBe('\u0001assistant\u0002Hello');
    expect(
      textOf(`${CHAT}?x=1`, [
        JSON.stringify({ choices: [{ message: { role: 'assistant', content: 'Hello', tool_calls: [] } }] }),
      ]),
    ).toBe('\u0001assistant\u0002Hello');
  });

  test('of a completion follows its prompt', () => {
    expect(
      textOf(COMPLETIONS, [
        JSON.stringify({ choices: [{ text: ' one' }] }),
        JSON.stringify({ choices: [{ text: ' two' }] }),
      ]),
    ).toBe(' one two');
    expect(textOf(COMPLETIONS, [JSON.stringify({ choices: [{ text: ' both' }], usage: {} })])).toBe(' both');
  });

  test('has its escapes and bytes undone', () => {
    const text = 'a "quoted" \\ back\nslash \u0007 ü 日本 😀';
    expect(textOf(COMPLETIONS, [JSON.stringify({ choices: [{ text }] })])).toBe(text);
    expect(textOf(COMPLETIONS, [String.raw`{"choices":[{"text":"\u00fc\ud83d\ude00\/"}]}`])).toBe('ü😀/');
    // An escape that two events share.
    expect(
      textOf(COMPLETIONS, [String.raw`{"choices":[{"text":"\ud83d"}]}`, String.raw`{"choices":[{"text":"\ude00"}]}`]),
    ).toBe('😀');
  });

  test('is not known where it would not come back as it was', () => {
    expect(
      textOf(CHAT, [delta('Let me'), JSON.stringify({ choices: [{ delta: { tool_calls: [{ index: 0 }] } }] })]),
    ).toBeUndefined();
    expect(textOf(CHAT, [JSON.stringify({ choices: [{ delta: { reasoning: 'hm' } }] }), delta('Yes')])).toBeUndefined();
    expect(
      textOf(CHAT, [JSON.stringify({ choices: [{ delta: { reasoning_content: 'hm' } }] }), delta('Yes')]),
    ).toBeUndefined();
    expect(textOf(CHAT, [JSON.stringify({ choices: [{ delta: { reasoning: null, content: 'Yes' } }] })])).toBe(
      '\u0001assistant\u0002Yes',
    );
  });

  test('is not kept beyond its bound', () => {
    const event = JSON.stringify({ choices: [{ text: 'x'.repeat(300_000) }] });
    expect(textOf(COMPLETIONS, [event])?.length).toBe(300_000);
    expect(textOf(COMPLETIONS, [event, event, event])).toBeUndefined();
  });

  test('is not followed on other routes, nor where there are several', () => {
    expect(AnswerText.of('/v1/responses', 1)).toBeUndefined();
    expect(AnswerText.of('/v1/completions/other', 1)).toBeUndefined();
    expect(AnswerText.of(CHAT, 2)).toBeUndefined();
  });
});
