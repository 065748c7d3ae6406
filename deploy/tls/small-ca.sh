#!/usr/bin/env bash
# A small authority of certificates, to try nexusd's TLS with. It is for trying: whoever reads its
# directory can let anybody in. In earnest, take the certificates of your own authority.
#
#   small-ca.sh init DIRECTORY                  makes the authority, unless it is there
#   small-ca.sh server DIRECTORY HOST…          server.pem and server.key for these hosts and addresses
#   small-ca.sh client DIRECTORY FILE SAN       FILE.pem and FILE.key; SAN is dns:…, uri:… or email:…
#
# Made again, server and client write new certificates over the old ones: nexusd reads them by itself.
set -euo pipefail
umask 077

days=90

fail() {
    echo "error: $*" >&2
    exit 2
}

# key FILE: a new private key, written at once.
key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key.new"
    mv "$1.key.new" "$1.key"
}

# sign FILE SUBJECT SAN USAGE: a certificate of the authority for the key of FILE.
sign() {
    openssl req -new -key "$1.key" -subj "/CN=$2" |
        openssl x509 -req -CA ca.pem -CAkey ca.key -days "$days" -out "$1.pem.new" -extfile <(
            printf '%s\n' "basicConstraints=CA:FALSE" "subjectAltName=$3" "extendedKeyUsage=$4" \
                "keyUsage=digitalSignature"
        )
    chmod 644 "$1.pem.new"
    mv "$1.pem.new" "$1.pem"
}

[ $# -ge 2 ] || fail "small-ca.sh init|server|client DIRECTORY …"
verb=$1 directory=$2
shift 2
mkdir -p "$directory"
cd "$directory"

case $verb in
init)
    if [ ! -e ca.pem ]; then
        key ca
        openssl req -x509 -new -key ca.key -days 3650 -subj "/CN=Nexus, for trying" -out ca.pem \
            -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign"
        chmod 644 ca.pem
    fi
    ;;
server)
    [ $# -ge 1 ] || fail "small-ca.sh server DIRECTORY HOST…"
    names=
    for host in "$@"; do
        case $host in
        *[!0-9.]*) kind=DNS ;;
        *) kind=IP ;;
        esac
        case $host in *:*) kind=IP ;; esac
        names+="${names:+,}$kind:$host"
    done
    key server
    sign server "$1" "$names" serverAuth
    ;;
client)
    [ $# -eq 2 ] || fail "small-ca.sh client DIRECTORY FILE SAN"
    case $2 in
    dns:*) name="DNS:${2#dns:}" ;;
    uri:*) name="URI:${2#uri:}" ;;
    email:*) name="email:${2#email:}" ;;
    *) fail "a SAN is dns:NAME, uri:URI or email:ADDRESS" ;;
    esac
    key "$1"
    sign "$1" "$1" "$name" clientAuth
    ;;
*) fail "there is no $verb: init, server and client are" ;;
esac
