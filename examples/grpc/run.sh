#!/bin/sh
# Starts a gRPC echo service (tonic) twice, in the clear and with TLS, and the gateway in front of both; Ctrl-C ends all.
#
#   examples/grpc/run.sh                              grpc://127.0.0.1:8000
#   GATEWARD=target/debug/gateward GRPC_ECHO=target/debug/grpc_echo PORT=8080 examples/grpc/run.sh
#
# Try it (the service echoes bytes as they are, so any message will do):
#
#   printf '\0\0\0\0\5hello' | curl -i --http2-prior-knowledge -H 'content-type: application/grpc' \
#     --data-binary @- http://127.0.0.1:8000/test.Echo/One
#
# With -H 'x-backend: tls' the call goes to the service with TLS.
set -eu
cd "$(dirname "$0")/../.."
port=${PORT:-8000}
backend_port=${BACKEND_PORT:-9102}
backend_tls_port=${BACKEND_TLS_PORT:-9103}
target=${CARGO_TARGET_DIR:-target}/release
if [ -z "${GATEWARD:-}" ] || [ -z "${GRPC_ECHO:-}" ]; then
  cargo build --release -q -p gateward -p gateward-e2e --bins
fi

dir=$(mktemp -d)
"${GRPC_ECHO:-$target/grpc_echo}" "127.0.0.1:$backend_port" &
backend=$!
"${GRPC_ECHO:-$target/grpc_echo}" "127.0.0.1:$backend_tls_port" "$dir" &
backend_tls=$!
gateway=
trap 'kill $backend $backend_tls $gateway 2>/dev/null || true; rm -rf "$dir"' EXIT
trap 'kill $gateway 2>/dev/null || true; wait $gateway || true; exit 0' INT TERM
# The service with TLS says whom to believe.
until [ -f "$dir/ca.pem" ]; do
  kill -0 $backend_tls
  sleep 0.1
done

GATEWARD_CONFIG_STRING=$(sed "s/127.0.0.1:9102/127.0.0.1:$backend_port/; s/localhost:9103/localhost:$backend_tls_port/" examples/grpc/kong.yml) \
GATEWARD_TRUSTED_CERTIFICATE="$dir/ca.pem" GATEWARD_PROXY_LISTEN="127.0.0.1:$port" GATEWARD_ADMIN_LISTEN=off GATEWARD_STATUS_LISTEN=off \
GATEWARD_SHUTDOWN_GRACE=0 "${GATEWARD:-$target/gateward}" gateway &
gateway=$!
echo "grpc://127.0.0.1:$port"
wait $gateway
