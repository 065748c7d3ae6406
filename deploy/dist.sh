#!/usr/bin/env bash
# `make dist`: an archive of both binaries with what they were made of, in target/dist. The binaries list their
# crates themselves (cargo auditable; `cargo audit bin nexusd` reads it), and beside them lies the same as CycloneDX.
# With `sbom` only the latter is made.
#
#   deploy/dist.sh [sbom]        PROFILE=dev builds quickly, to try it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile=${PROFILE:-release}
target=$(rustc -vV | sed -n 's/^host: //p')
version=$(sed -n '0,/^version = /s/^version = "\(.*\)"/\1/p' Cargo.toml)
# The same sources make the same archive.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
name=nexus-$version-$target
dist=target/dist

# What is linked into the binaries, with licences and hashes; neither tests' nor build scripts' crates.
sbom() {
  local tool
  tool=$(deploy/cargo-tools.sh cargo-cyclonedx)
  PATH=$tool:$PATH cargo cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --target "$target" \
    --override-filename nexus.cdx
  mkdir -p $dist
  # It lies beside Cargo.toml, and names the directory.
  sed "s#path+file://$PWD\#nexus@#pkg:cargo/nexus@#g" nexus.cdx.json >$dist/nexus.cdx.json
  rm nexus.cdx.json
  echo "$dist/nexus.cdx.json: $(grep -c '"bom-ref": "registry+' $dist/nexus.cdx.json) crates"
}

sbom
[[ ${1:-} == sbom ]] && exit

tool=$(deploy/cargo-tools.sh cargo-auditable)
# In a directory of its own: what is built without the list would be built anew, and again after it.
PATH=$tool:$PATH cargo auditable build --profile "$profile" --locked --bins --target-dir target/auditable
built=target/auditable/$([[ $profile == dev ]] && echo debug || echo "$profile")
rm -rf "${dist:?}/$name"
install -D -t "$dist/$name" "$built/nexusd" "$built/nexusctl"
for binary in nexusd nexusctl; do
  # Bash's own test: grep would end before what writes to it does.
  [[ $(readelf --wide --sections "$dist/$name/$binary") == *.dep-v0* ]] ||
    { echo "error: $binary does not list its crates" >&2 && exit 1; }
done
install -m 644 -t "$dist/$name" LICENSE README.md SECURITY.md deploy/nexus.toml $dist/nexus.cdx.json
install -m 644 -D -t "$dist/$name/systemd" deploy/systemd/*
tar --create --gzip --file "$dist/$name.tar.gz" --directory $dist --sort=name --owner=0 --group=0 --numeric-owner \
  --mtime="@$SOURCE_DATE_EPOCH" "$name"
(cd $dist && sha256sum "$name.tar.gz" nexus.cdx.json >SHA256SUMS)
cat $dist/SHA256SUMS
