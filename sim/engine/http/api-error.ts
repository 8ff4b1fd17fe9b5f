import type { z } from 'zod';

/** An answer other than 200, in vLLM's shape `{"error":{message,type,param,code}}`. */
export class ApiError extends Error {
  readonly status: number;
  readonly type: string;
  readonly param: string | null;

  constructor(status: number, type: string, message: string, param: string | null = null) {
    super(message);
    this.status = status;
    this.type = type;
    this.param = param;
  }

  body(): object {
    return { error: { message: this.message, type: this.type, param: this.param, code: this.status } };
  }
}

export const badRequest = (message: string, param: string | null = null): ApiError =>
  new ApiError(400, 'BadRequestError', message, param);

/** What vLLM answers, and writes into streams, once its engine core is gone. */
export const engineDead = (): ApiError =>
  new ApiError(
    500,
    'InternalServerError',
    'EngineCore encountered an issue. See stack trace (above) for the root cause.',
  );

/** A body against its schema; throws vLLM's answer to a validation error, with `param` such as `body.max_tokens`. */
export function parseBody<T extends z.ZodType>(schema: T, body: unknown): z.infer<T> {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const { issues } = parsed.error;
  const lines = issues.map(
    (issue) => `  ${JSON.stringify({ loc: ['body', ...issue.path.map(String)], msg: issue.message })}`,
  );
  const count = issues.length;
  const param = ['body', ...issues[0]!.path].join('.');
  throw new ApiError(
    400,
    'Bad Request',
    `${count} validation error${count > 1 ? 's' : ''}:\n${lines.join('\n')}`,
    param,
  );
}
