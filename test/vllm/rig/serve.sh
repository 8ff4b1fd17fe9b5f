#!/usr/bin/env bash
# Start real vLLM (API server, EngineCore, scheduler, block pool, metrics) with the executor of fakeexec.py: ./serve.sh [options of `vllm serve`]
#
#   PYTHON      interpreter of the rig, see install.sh                              (python3)
#   MODEL_DIR   from mktiny.py, made if absent                                      (./tiny-model beside this file)
#   PORT        on the loopback interface                                           (8123)
#   FAKE_STEP, FAKE_COEFF, FAKE_SCALE, FAKE_HIDDEN, FAKE_ASYNC  step time, see fakeexec.py
#   EVENTS_PORT, REPLAY_PORT  publish KV events there; without EVENTS_PORT none are (none)
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
PYTHON="${PYTHON:-python3}"
MODEL_DIR="${MODEL_DIR:-$here/tiny-model}"
[ -f "$MODEL_DIR/config.json" ] || "$PYTHON" "$here/mktiny.py" "$MODEL_DIR"

export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONHASHSEED="${PYTHONHASHSEED:-0}" PYTHONDONTWRITEBYTECODE=1
export VLLM_TARGET_DEVICE=cpu VLLM_USE_V2_MODEL_RUNNER=0 VLLM_NO_USAGE_STATS=1 VLLM_SERVER_DEV_MODE=1 HF_HUB_OFFLINE=1

events=()
if [ -n "${EVENTS_PORT:-}" ]; then
  replay="${REPLAY_PORT:+,\"replay_endpoint\":\"tcp://*:$REPLAY_PORT\"}"
  events=(--kv-events-config "{\"enable_kv_cache_events\":true,\"publisher\":\"zmq\",\"endpoint\":\"tcp://*:$EVENTS_PORT\"$replay,\"topic\":\"kv@127.0.0.1@tiny\"}")
fi

exec "$PYTHON" -m vllm.entrypoints.cli.main serve "$MODEL_DIR" \
  --served-model-name tiny --host 127.0.0.1 --port "${PORT:-8123}" \
  --distributed-executor-backend fakeexec.FakeExecutor --load-format dummy --enforce-eager --block-size 16 \
  --enable-prompt-tokens-details --enable-request-id-headers --prefix-caching-hash-algo sha256_cbor \
  ${events[@]+"${events[@]}"} "$@"
