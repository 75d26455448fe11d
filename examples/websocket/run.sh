#!/bin/sh
# Starts a WebSocket echo server and the gateway in front of it; Ctrl-C ends both.
#
#   examples/websocket/run.sh                         ws://127.0.0.1:8000/chat
#   GATEWARD=target/debug/gateward PORT=8080 BACKEND_PORT=9200 examples/websocket/run.sh
#
# Try it, with a client such as websocat: websocat ws://127.0.0.1:8000/chat
set -eu
here=$(dirname "$0")
port=${PORT:-8000}
backend_port=${BACKEND_PORT:-9101}
gateward=${GATEWARD:-gateward}

python3 "$here/echo.py" "$backend_port" &
backend=$!
gateway=
trap 'kill $backend $gateway 2>/dev/null || true' EXIT
trap 'kill $gateway 2>/dev/null || true; wait $gateway || true; exit 0' INT TERM

GATEWARD_CONFIG_STRING=$(sed "s/127.0.0.1:9101/127.0.0.1:$backend_port/" "$here/kong.yml") \
GATEWARD_PROXY_LISTEN="127.0.0.1:$port" GATEWARD_ADMIN_LISTEN=off GATEWARD_STATUS_LISTEN=off \
GATEWARD_SHUTDOWN_GRACE=0 "$gateward" gateway &
gateway=$!
echo "ws://127.0.0.1:$port/chat"
wait $gateway
