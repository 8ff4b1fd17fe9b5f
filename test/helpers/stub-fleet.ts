import type { ServerResponse } from 'node:http';
import type { RunningAgent } from '../../agent/main.ts';
import type { InstanceView } from '../../agent/entry/instances.ts';
import type { HttpAnswer, HttpOptions } from './http.ts';
import { COMPLETIONS, LinkedFleet, upCount, urlOf } from './linked-fleet.ts';
import { StubVllm, type StubRequest } from './stub-vllm.ts';

const STUB_MODEL = 'stub-model';

/** One agent before several scripted servers, which it takes in turn. */
export class StubFleet extends LinkedFleet {
  readonly stubs: StubVllm[] = [];
  agent!: RunningAgent;

  async startStubs(count: number, sets: Record<string, string | number> = {}): Promise<void> {
    for (let i = 0; i < count; i++) this.stubs.push(new StubVllm(STUB_MODEL));
    const urls = await Promise.all(this.stubs.map((stub) => stub.listen()));
    this.agent = await this.startLinked('agent', urls, [], sets);
    await this.until('all are up', () => upCount(this.agent) === count);
  }

  async stopAll(): Promise<void> {
    await this.stop();
    await Promise.all(this.stubs.map((stub) => stub.close()));
  }

  /** What every stub answers from now on. */
  answer(on: (request: StubRequest, response: ServerResponse, stub: number) => void): void {
    this.stubs.forEach((stub, at) => {
      stub.requests.length = 0;
      stub.answer = (request, response) => on(request, response, at);
    });
  }

  ask(body: object = {}, options: HttpOptions = {}): Promise<HttpAnswer> {
    const text = JSON.stringify({ model: STUB_MODEL, prompt: 'x', ...body });
    return this.call(urlOf(this.agent) + COMPLETIONS, { body: text, ...options });
  }

  views(): InstanceView[] {
    return [...this.agent.context.instances.views.values()];
  }

  /** Requests that each stub has got. */
  hits(): number[] {
    return this.stubs.map((stub) => stub.requests.length);
  }
}

export function answerJson(response: ServerResponse, status = 200, headers: Record<string, string> = {}): void {
  const body = status < 400 ? '{"choices":[]}' : `{"error":{"message":"no","type":"x","param":null,"code":${status}}}`;
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(body);
}
