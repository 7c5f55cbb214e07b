#!/bin/sh
# Everything that waits for a GPU, in one call of less than ten minutes: benchmarks/gpu/all.sh OUT
# Each part runs in a process of its own under a time limit, at which it is interrupted so that it
# can say so; one that fails is noted, the rest goes on. Results: OUT/results.json, OUT/log,
# OUT/summary. RUN_FLAGS are added to every part.
set -u
cd "$(dirname "$0")/../.."
out=$1
mkdir -p "$out"
python=${PYTHON:-python3}
: >"$out/summary"

part() { # SECONDS NAME COMMAND...
    limit=$1 name=$2
    shift 2
    printf '\n== %s\n' "$name" >>"$out/log"
    began=$(date +%s)
    timeout -s INT -k 5 "$limit" "$@" >>"$out/log" 2>&1
    code=$?
    echo "$name: exit $code, $(($(date +%s) - began)) s" | tee -a "$out/summary"
}

run() { # SECONDS NAME ARGUMENTS...
    limit=$1 name=$2
    shift 2
    # shellcheck disable=SC2086 # several flags
    part "$limit" "$name" "$python" -m benchmarks.gpu.run "$@" --out "$out" ${RUN_FLAGS:-}
}

part 20 machine sh -c "nvidia-smi; $python -m pip list 2>/dev/null | grep -i -E 'torch|triton|flash'"
run 90 checks checks
run 50 kernels attention ops
run 130 engine budget decode prefill mixed vision
run 50 'our own attention' decode prefill --short --attention triton
run 50 'no graphs' decode vision --short --no-graphs
run 50 'no fused operations' decode prefill vision --short --ops torch
run 40 'attention of torch' decode prefill --short --attention torch
run 30 products products

tail -n 60 "$out/log"
cat "$out/summary"
