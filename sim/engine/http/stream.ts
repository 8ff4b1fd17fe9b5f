import type { ServerResponse } from 'node:http';
import type { EngineRequest } from '../request.ts';
import { wordOf } from '../output-text.ts';
import { engineDead } from './api-error.ts';
import type { Emulator } from './emulator.ts';
import { submitChoices, type Choice, type Wanted } from './generation.ts';
import { fingerprint, requestMetrics, usageOf } from './usage.ts';

/** A client that does not read is cut off when this much waits for it. */
const MAX_BUFFERED_BYTES = 8 << 20;

/** The parts of a chunk that are the same for all tokens of a choice; a chunk is prefix + text as JSON + the rest. */
interface ChunkParts {
  prefix: string;
  /** After the text, with the finish reason yet to come. */
  middle: string;
}

/**
 * Answers a request as server-sent events, field by field as vLLM does: status and headers at once, the first `data:`
 * with the first token, one write a token. A client that leaves aborts its engine requests at once.
 */
export class StreamAnswer {
  private readonly emulator: Emulator;
  private readonly wanted: Wanted;
  private readonly raw: ServerResponse;
  private readonly head: string;
  private readonly choices: Choice[];
  private open: number;
  private chunks = 0;
  private isOver = false;

  constructor(emulator: Emulator, wanted: Wanted, raw: ServerResponse) {
    this.emulator = emulator;
    this.wanted = wanted;
    this.raw = raw;
    const object = wanted.isChat ? 'chat.completion.chunk' : 'text_completion';
    this.head = `data: {"id":${JSON.stringify(wanted.id)},"object":"${object}","created":${wanted.created},"model":${JSON.stringify(emulator.model)},`;
    raw.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'x-emulated': 'lodestar' });
    raw.flushHeaders();
    emulator.load++;
    raw.once('close', () => this.onClose());
    this.choices = submitChoices(emulator, wanted, (choice) => this.sinkOf(choice));
    this.open = this.choices.length;
  }

  private sinkOf(choice: Choice): {
    onToken: (r: EngineRequest, token: number) => void;
    onFinish: () => void;
    onDeath: () => void;
  } {
    const parts = this.wanted.isChat ? chatParts(this.head, choice) : completionParts(this.head, choice);
    return {
      onToken: (request, token) => this.write(this.chunk(choice, parts, request, token)),
      onFinish: () => this.onChoiceEnd(),
      onDeath: () => this.onDeath(),
    };
  }

  /** The chunk of one token; before a chat's first, the role chunk in the same write. */
  private chunk(choice: Choice, parts: ChunkParts, request: EngineRequest, token: number): string {
    const { wanted } = this;
    const isFirst = request.outputCount === 1;
    const reason = request.status === 'finished' ? `"${request.finishReason}"` : 'null';
    const ids = wanted.returnTokenIds ? `[${token}]` : 'null';
    const tail = wanted.continuousUsage ? this.runningUsage(request, request.outputCount) : this.stamp(request);
    let text = `${parts.prefix}${wordOf(token).json}${parts.middle}${reason}`;
    if (!wanted.isChat) {
      const promptIds = isFirst && wanted.returnTokenIds ? JSON.stringify(Array.from(request.prompt)) : 'null';
      return `${text},"stop_reason":null,"prompt_token_ids":${promptIds},"token_ids":${ids}}]${tail}}\n\n`;
    }
    if (request.status === 'finished') text += ',"stop_reason":null';
    const chunk = `${text},"token_ids":${ids}}]${tail}}\n\n`;
    return isFirst ? this.roleChunk(choice, request) + chunk : chunk;
  }

  /** Where no usage event follows, the last chunk of a choice bears the fingerprint. */
  private stamp(request: EngineRequest): string {
    if (this.wanted.includeUsage || request.status !== 'finished') return '';
    return `,"system_fingerprint":${JSON.stringify(fingerprint(this.emulator))}`;
  }

  private roleChunk(choice: Choice, request: EngineRequest): string {
    const usage = this.wanted.continuousUsage ? this.runningUsage(request, 0) : '';
    const promptIds = this.wanted.returnTokenIds ? JSON.stringify(Array.from(request.prompt)) : 'null';
    this.chunks++;
    return (
      `${this.head}"choices":[{"index":${choice.index},"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]` +
      `${usage},"prompt_token_ids":${promptIds},"prompt_text":null}\n\n`
    );
  }

  private runningUsage(request: EngineRequest, completion: number): string {
    const prompt = request.promptLength;
    return (
      `,"usage":{"prompt_tokens":${prompt},"total_tokens":${prompt + completion},"completion_tokens":${completion},` +
      '"completion_tokens_details":null}'
    );
  }

  private write(chunk: string): void {
    if (this.isOver) return;
    this.raw.write(chunk);
    this.chunks++;
    const limit = this.emulator.faults.dropAfterChunks;
    if ((limit !== undefined && this.chunks >= limit) || this.raw.writableLength > MAX_BUFFERED_BYTES) this.cut();
  }

  /** Breaks the connection, after what was written has left. */
  private cut(): void {
    this.isOver = true;
    this.abortAll();
    this.raw.socket?.end(() => this.raw.destroy());
  }

  private onChoiceEnd(): void {
    if (--this.open > 0 || this.isOver) return;
    this.isOver = true;
    let tail = 'data: [DONE]\n\n';
    if (this.wanted.includeUsage) {
      const usage = {
        usage: usageOf(this.wanted, this.choices, this.emulator.engine.blockSize),
        system_fingerprint: fingerprint(this.emulator),
        metrics: requestMetrics(this.choices),
      };
      tail = `${this.head}"choices":[],${JSON.stringify(usage).slice(1)}\n\n${tail}`;
    }
    this.raw.end(tail);
  }

  private onDeath(): void {
    if (this.isOver) return;
    this.isOver = true;
    this.raw.end(`data: ${JSON.stringify(engineDead().body())}\n\ndata: [DONE]\n\n`);
  }

  private onClose(): void {
    this.isOver = true;
    this.emulator.load--;
    this.abortAll();
  }

  private abortAll(): void {
    for (const choice of this.choices) this.emulator.engine.abort(choice.request);
  }
}

function completionParts(head: string, choice: Choice): ChunkParts {
  return { prefix: `${head}"choices":[{"index":${choice.index},"text":`, middle: ',"logprobs":null,"finish_reason":' };
}

function chatParts(head: string, choice: Choice): ChunkParts {
  return {
    prefix: `${head}"choices":[{"index":${choice.index},"delta":{"content":`,
    middle: '},"logprobs":null,"finish_reason":',
  };
}
