#!/usr/bin/env bash
# Sees to the programs that `make demo` and `make test` need beside Rust: installs what is missing
# with Debian's apt-get, once, without questions, and says so. What is there already is left alone.
#
#   deploy/prerequisites.sh postgresql [pgbouncer] [prometheus] [prometheus-alertmanager] [faketime]
set -euo pipefail
shopt -s nullglob

# PostgreSQL's server programs, where nexusd looks for them: NEXUS_PG_BIN, PATH, Debian's directories.
has_postgresql() {
  local debian=(/usr/lib/postgresql/*/bin/initdb)
  [[ -n ${NEXUS_PG_BIN:-} && -x $NEXUS_PG_BIN/initdb ]] || command -v initdb >/dev/null || ((${#debian[@]}))
}

has_prometheus() { command -v prometheus >/dev/null && command -v promtool >/dev/null; }

has_prometheus-alertmanager() { command -v prometheus-alertmanager >/dev/null && command -v amtool >/dev/null; }

has_faketime() { local library=(/usr/lib/*/faketime/libfaketime.so.1) && ((${#library[@]})); }

has_pgbouncer() { PATH=$PATH:/usr/sbin command -v pgbouncer >/dev/null; }

missing=()
for program in "$@"; do
  case $program in
    postgresql | pgbouncer | prometheus | prometheus-alertmanager | faketime) "has_$program" || missing+=("$program") ;;
    *) echo "error: no such prerequisite: $program" >&2 && exit 2 ;;
  esac
done
((${#missing[@]})) || exit 0

as_root=()
if ((EUID != 0)); then
  as_root=(sudo)
fi
if ! command -v apt-get >/dev/null || { ((EUID != 0)) && ! command -v sudo >/dev/null; }; then
  cat >&2 <<END
error: missing: ${missing[*]}; installing them takes Debian's apt-get, and root or sudo
hint: have somebody with root run: apt-get install ${missing[*]}
hint: PostgreSQL's programs may lie anywhere: NEXUS_PG_BIN=DIRECTORY names the one that holds initdb
END
  exit 1
fi

echo "missing: ${missing[*]}; installing Debian's packages: no cluster is created, no service is started"
# Debian creates and starts a cluster for each new server package, and starts other daemons, unless
# told otherwise. Both files are there for this installation only; files of the machine's own are kept.
cluster=/etc/postgresql-common/createcluster.d/nexus.conf
policy=/usr/sbin/policy-rc.d
ours=("$cluster")
[[ -e $policy ]] || ours+=("$policy")
trap '"${as_root[@]}" rm -f "${ours[@]}"' EXIT
"${as_root[@]}" mkdir -p "${cluster%/*}"
echo 'create_main_cluster = false' | "${as_root[@]}" tee "$cluster" >/dev/null
if [[ -v ours[1] ]]; then
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod +x "$policy"
fi
"${as_root[@]}" apt-get update
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install --yes --no-install-recommends "${missing[@]}"
