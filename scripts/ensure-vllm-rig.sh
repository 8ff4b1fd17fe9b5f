#!/usr/bin/env bash
# Installs the vLLM rig (docs/real-vllm.md) if it is absent: about 4 minutes, 6 GB. Into LODESTAR_VLLM_RIG, or a folder of the user's cache.
# --check: installs nothing; status 0 if it is there, 1 if not.
set -euo pipefail
cd "$(dirname "$0")/.."
rig="${LODESTAR_VLLM_RIG:-$HOME/.cache/lodestar/vllm-rig}"
# Its installer makes this folder last.
if compgen -G "$rig/lib/python3.*/site-packages/vllm-[0-9]*.dist-info" > /dev/null; then exit 0; fi
if [ "${1:-}" = --check ]; then exit 1; fi
echo "installing vLLM into $rig (about 4 minutes, 6 GB)"
mkdir -p "$rig"
bash test/vllm/rig/install.sh "$rig"
