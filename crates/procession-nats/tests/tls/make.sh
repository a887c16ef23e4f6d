#!/usr/bin/env bash
# Makes the certificates of the tests, for servers and programs on this machine only, from 2020 to 2120.
# Their keys are public: trust them nowhere else.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cat >"$work/ca.conf" <<END
[ca]
default_ca = tests
[tests]
database = $work/index
rand_serial = yes
new_certs_dir = $work
default_md = sha256
policy = any
default_startdate = 20200101000000Z
default_enddate = 21200101000000Z
[any]
commonName = supplied
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[server]
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:localhost, IP:127.0.0.1, DNS:nats-1, DNS:nats-2, DNS:nats-3
[client]
extendedKeyUsage = clientAuth
subjectAltName = DNS:agent
END
touch "$work/index"
made() { # NAME KEY, and how it is signed
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$2"
    openssl req -new -key "$2" -subj "/CN=procession test $1" -out "$work/request"
    openssl ca -batch -notext -config "$work/ca.conf" -extensions "$1" -in "$work/request" -out "$work/made" "${@:3}"
}
made authority "$work/ca.key" -selfsign -keyfile "$work/ca.key"
mv "$work/made" ca.pem
for name in server client; do
    made $name $name.key -cert ca.pem -keyfile "$work/ca.key"
    mv "$work/made" $name.pem
done
