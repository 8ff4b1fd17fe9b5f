"""Official Python clients against an agent: python clients.py AGENT_URL MODEL. Prints what they saw as one JSON object."""
import json
import sys

import anthropic
import openai

url, model = sys.argv[1:]
text = "hello world this is a tiny tokenizer for router tests " * 10
messages = [{"role": "user", "content": text}]
ai = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
claude = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)


def raised(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return None


def chat():
    whole = ai.chat.completions.create(model=model, messages=messages, max_tokens=6)
    parts = ""
    for chunk in ai.chat.completions.create(model=model, messages=messages, max_tokens=6, stream=True):
        parts += chunk.choices[0].delta.content or ""
    return {"tokens": whole.usage.completion_tokens, "sameStreamed": parts == whole.choices[0].message.content}


def response():
    whole = ai.responses.create(model=model, input=text, max_output_tokens=6)
    parts = ""
    for event in ai.responses.create(model=model, input=text, max_output_tokens=6, stream=True):
        if event.type == "response.output_text.delta":
            parts += event.delta
    return {"tokens": whole.usage.output_tokens, "sameStreamed": parts == whole.output_text}


def message():
    whole = claude.messages.create(model=model, max_tokens=6, messages=messages)
    with claude.messages.stream(model=model, max_tokens=6, messages=messages) as stream:
        parts = "".join(stream.text_stream)
    return {"tokens": whole.usage.output_tokens, "sameStreamed": parts == whole.content[0].text}


seen = {
    "models": model in [one.id for one in ai.models.list()],
    "completion": {"tokens": ai.completions.create(model=model, prompt=text, max_tokens=4).usage.completion_tokens},
    "chat": chat(),
    "response": response(),
    "message": message(),
    "notFound": raised(lambda: ai.completions.create(model="nobody", prompt="x")),
    "tooLong": raised(lambda: ai.chat.completions.create(model=model, messages=messages, max_tokens=99_999)),
    "anthropicNotFound": raised(lambda: claude.messages.create(model="nobody", max_tokens=5, messages=messages)),
}
print(json.dumps(seen))
