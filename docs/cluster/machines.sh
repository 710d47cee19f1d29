#!/bin/bash
# A Ray cluster of plain machines that this one reaches by ssh: machines.sh start|stop HOST...
set -euo pipefail
action=${1:?usage: machines.sh start|stop HOST...}
shift
port=${RAY_PORT:-6379}
ray=${RAY:-ray}
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
token=$HOME/.ray/auth_token

case $action in
start)
    address=${ADDRESS:-$(hostname --ip-address | awk '{print $1}')}
    [[ -f $token ]] || "$ray" get-auth-token --generate >/dev/null
    "$ray" start --head --node-ip-address="$address" --port="$port" --include-dashboard=false
    for host in "$@"; do
        ssh "$host" "umask 077; mkdir -p ~/.ray; cat >~/.ray/auth_token" <"$token"
        ssh "$host" "RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token $ray start --address=$address:$port"
    done
    echo "privbench run matrix.toml --runner ray --address $address:$port"
    ;;
stop)
    for host in "$@"; do ssh "$host" "$ray stop"; done
    "$ray" stop
    ;;
*)
    echo "usage: machines.sh start|stop HOST..." >&2
    exit 2
    ;;
esac
