import type { Guard } from './guard.ts';

/** The instance serves the requested model or LoRA adapter; a request without a model goes anywhere, as in vLLM. */
export const model: Guard = {
  name: 'model',
  describe: 'the instance serves the model',
  yields: 'never',
  allows: (view, { request }) => request.model === undefined || (view.report?.models.includes(request.model) ?? false),
};
