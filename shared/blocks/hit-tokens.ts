/**
 * Cached tokens of a prompt as vLLM counts them: whole blocks, and never the whole prompt, since it computes at least
 * one token (vllm/v1/core/kv_cache_manager.py, get_computed_blocks). All arguments are in tokens.
 */
export function engineHitTokens(matchedTokens: number, promptTokens: number, blockTokens: number): number {
  const block = Math.max(1, blockTokens);
  const limit = Math.floor(Math.max(0, promptTokens - 1) / block) * block;
  return Math.min(limit, Math.floor(matchedTokens / block) * block);
}
