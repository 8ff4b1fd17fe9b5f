"""Executor for real vLLM that does no model work.

Give it to `vllm serve` by dotted name (`--distributed-executor-backend fakeexec.FakeExecutor`) with this folder on
PYTHONPATH. HTTP, scheduler, KV manager, /metrics and KV events are then vLLM's own; only the forward pass is faked.

FAKE_STEP   seconds slept per step that schedules at least one token (default 0.02). Empty steps, which EngineCore runs to
            flush finished request ids, cost nothing.
FAKE_COEFF  "c0,c1,c2,c3,c4" or "c0,c1,c2,c3,c4,T0,c5" in milliseconds: the step lasts as long as it would on that GPU (both
            formulas and the coefficients are in sim/data/calibration), instead of FAKE_STEP. Checked on vLLM 0.29.
FAKE_SCALE  multiplies every step time (default 1).
FAKE_ASYNC  1: async scheduling, vLLM's default on GPUs, which its CPU platform switches off: the step after the one under way is
            scheduled while that one runs (default 0).
FAKE_HIDDEN host seconds between two steps of a busy engine that do not lengthen them (default 0.005; 0 = none).
FAKE_REPORT file that gets {"steps", "step_s", "lost_s"} whenever the engine falls idle: steps so far, their seconds, and the host seconds between
            steps beyond FAKE_HIDDEN, by which a machine with other work slows the engine down.

Each request that has caught up with its prompt and outputs gets one token id per step, cycling through 260..289 from its first token on,
so the same request gets the same answer. The ids mean nothing, so use ignore_eos / max_tokens.
"""
import json
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from vllm.v1.executor.abstract import Executor
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.outputs import ModelRunnerOutput

PROMPT, COMPUTED, GENERATED = 0, 1, 2
ASYNC = os.environ.get("FAKE_ASYNC", "0") == "1"


class FakeExecutor(Executor):
    def _init_executor(self):
        self.state = {}  # request id -> [prompt tokens, computed tokens before this step, generated tokens]
        coeff = os.environ.get("FAKE_COEFF")
        self.coeff = [float(c) for c in coeff.split(",")] if coeff else None
        self.fixed_step = float(os.environ.get("FAKE_STEP", "0.02"))
        self.scale = float(os.environ.get("FAKE_SCALE", "1"))
        self.hidden = float(os.environ.get("FAKE_HIDDEN", "0.005"))
        self.last_end = 0.0
        self.report = os.environ.get("FAKE_REPORT")
        self.steps = 0
        self.step_seconds = self.lost_seconds = 0.0
        if ASYNC:
            # The CPU platform has switched it off. The scheduler is made after the executor, from this setting.
            self.scheduler_config.async_scheduling = True
            self.gpu = ThreadPoolExecutor(max_workers=1)
            self.unsampled = None

    def initialize_from_config(self, kv_cache_configs):
        pass

    def compile_or_warm_up_model(self):
        pass

    def register_failure_callback(self, callback):
        pass

    def determine_available_memory(self):
        return [1 << 24]

    def get_kv_cache_specs(self):
        spec = FullAttentionSpec(
            block_size=self.cache_config.block_size, num_kv_heads=1, head_size=32, dtype=torch.bfloat16
        )
        return [{"layer.0": spec}]

    def get_supported_kv_cache_layouts(self):  # asked by vLLM >= 0.29
        return [["LBNHC"]]

    def set_kv_cache_layout(self, layout_name):
        pass

    @property
    def supported_tasks(self):
        return ("generate",)

    @classmethod
    def supports_async_scheduling(cls):
        return ASYNC

    def collective_rpc(self, method, timeout=None, args=(), kwargs=None, non_block=False, **_):
        return [True]  # add_lora and its like: there are no weights to load

    def check_health(self):
        pass

    def shutdown(self):
        pass

    def get_kv_connector_handshake_metadata(self):
        return []

    def execute_model(self, scheduler_output, non_block=False):
        self._track(scheduler_output)
        scheduled = scheduler_output.num_scheduled_tokens
        if scheduled:
            now = time.monotonic()
            # Real vLLM prepares the next step while the GPU works (async scheduling), so host time between two busy steps
            # is hidden up to FAKE_HIDDEN seconds: the step is counted from the end of the last one.
            # Without a request that runs on, the engine may have been idle.
            runs_on = bool(scheduler_output.scheduled_cached_reqs.req_ids)
            late = now - self.last_end
            start = self.last_end if late < (self.hidden if runs_on else min(self.hidden, 0.005)) else now
            seconds = self._step_seconds(scheduled) * self.scale
            self.last_end = start + seconds
            self.steps += 1
            self.step_seconds += seconds
            if runs_on and late >= self.hidden:
                self.lost_seconds += late
            if not ASYNC:
                time.sleep(max(0.0, self.last_end - now))
        elif self.report:
            with open(self.report, "w") as file:
                json.dump({"steps": self.steps, "step_s": self.step_seconds, "lost_s": self.lost_seconds}, file)

        ids = list(scheduled)
        sampled = [self._sample(rid, scheduled[rid]) for rid in ids]
        output = ModelRunnerOutput(
            req_ids=ids,
            req_id_to_index={rid: i for i, rid in enumerate(ids)},
            sampled_token_ids=sampled,
            logprobs=None,
            prompt_logprobs_dict={},
            pooler_output=[],
        )
        if not non_block:
            return output
        if ASYNC and scheduled:
            self.unsampled = self.gpu.submit(self._finish, self.last_end, output)
            return ready(None)
        return ready(output)

    def sample_tokens(self, grammar_output, non_block=False):
        return self.unsampled if ASYNC else None

    def _finish(self, end, output):
        time.sleep(max(0.0, end - time.monotonic()))
        return output

    def _track(self, scheduler_output):
        for request in scheduler_output.scheduled_new_reqs:
            self.state[request.req_id] = [len(request.prompt_token_ids or []), request.num_computed_tokens, 0]
        cached = scheduler_output.scheduled_cached_reqs
        for i, rid in enumerate(cached.req_ids):
            if rid in self.state:
                self.state[rid][COMPUTED] = cached.num_computed_tokens[i]
        for rid in scheduler_output.finished_req_ids:
            self.state.pop(rid, None)

    def _step_seconds(self, scheduled):
        if self.coeff is None:
            return self.fixed_step
        c0, c1, c2, c3, c4 = self.coeff[:5]
        free, c5 = self.coeff[5:] if len(self.coeff) == 7 else (None, 0.0)
        prefill = decode = chunks = context = pairs = 0
        for rid, tokens in scheduled.items():
            prompt, computed, _ = self.state[rid]
            if computed >= prompt and tokens == 1:  # decoding; a preempted request prefills its own outputs again
                decode += 1
                context += computed
            else:
                chunks += 1
                prefill += tokens
                pairs += tokens * (computed + tokens / 2)
        if free is None:
            ms = c0 + c1 * prefill + c2 * pairs + c3 * decode + c4 * context
        else:
            ms = c0 + c1 * max(0, prefill + decode - free) + c2 * pairs + c3 * (decode + chunks) + c4 * context
            if prefill:
                ms += c5 * context
        return ms / 1000

    def _sample(self, rid, scheduled_tokens):
        """One token if this step completes the request's known tokens, none in the middle of a prefill."""
        state = self.state[rid]
        if state[COMPUTED] + scheduled_tokens < state[PROMPT] + state[GENERATED]:
            return []
        state[GENERATED] += 1
        return [260 + (state[GENERATED] - 1) % 30]


def ready(value):
    future = Future()
    future.set_result(value)
    return future
