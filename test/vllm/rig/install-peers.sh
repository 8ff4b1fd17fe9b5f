#!/usr/bin/env bash
# Install the routers that Lodestar is compared with (npm run bench:vllm) into a virtual environment: ./install-peers.sh VENV
# Half a minute, 260 MB. One that cannot be installed is left out: the comparison goes on without it.
set -uo pipefail
venv="${1:?usage: install-peers.sh VENV}"
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv" || exit 1
for package in vllm-router==0.1.16 smg==1.13.0; do
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$package" || echo "$package could not be installed" >&2
done
