#!/usr/bin/env bash
# `make fuzz`: each target for SECONDS, from the committed seeds and from what was found before (target/fuzz). An
# input that breaks something is kept in target/fuzz/artifacts, and the run fails.
#
#   fuzz/run.sh SECONDS [TARGET…]
#
# The stable compiler does it, without a sanitizer: nothing here is unsafe, and what is looked for are panics,
# hangs and memory. PROFILE=release is slower to build and faster to run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=$1 && shift
targets=("$@")
((${#targets[@]})) || targets=(migration_file configuration request url)
command -v c++ >/dev/null || { echo 'error: libFuzzer is built from C++: apt-get install g++' >&2 && exit 1; }
PATH=$(deploy/cargo-tools.sh cargo-fuzz):$PATH

# The versions that are fuzzed are those that are shipped.
if ! cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null 2>&1; then
  echo 'fuzz/Cargo.lock does not fit any more: it is made anew from Cargo.lock; commit it' >&2
  cp Cargo.lock fuzz/Cargo.lock
  cargo metadata --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
fi
build=(--sanitizer none --target-dir target/fuzz)
[[ ${PROFILE:-dev} == dev ]] && build+=(--dev)
cargo fuzz build "${build[@]}"
for target in "${targets[@]}"; do
  found=target/fuzz/corpus/$target artifacts=$PWD/target/fuzz/artifacts/$target
  mkdir -p "$found" "$artifacts"
  seeds=("fuzz/seeds/$target")
  [[ $target == migration_file ]] && seeds+=(migrations)
  log=target/fuzz/$target.log
  # One input that takes ten seconds, or a gigabyte, has found something.
  cargo fuzz run "${build[@]}" "$target" "$found" "${seeds[@]}" -- -max_total_time="$seconds" -timeout=10 \
    -rss_limit_mb=1024 -max_len=8192 -print_final_stats=1 -artifact_prefix="$artifacts/" >"$log" 2>&1 ||
    { tail -n 60 "$log" >&2 && echo "error: $target failed; what did it is in $artifacts" >&2 && exit 1; }
  runs=$(sed -n 's/^stat::number_of_executed_units: //p' "$log")
  echo "fuzzed: $target: $runs inputs in $seconds s, $(find "$found" -type f | wc -l) of them kept"
done
