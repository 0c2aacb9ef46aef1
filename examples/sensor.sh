#!/bin/sh
# A sensor in shell: publishes one picture and prints the answer.
#
#     examples/sensor.sh examples/images/digit-7-3.png 500
#
# Needs mosquitto-clients 2.0. Settings: BROKER_HOST, BROKER_PORT, PREFIX, APPLICATION.
set -eu

picture=${1:?usage: sensor.sh PICTURE [DEADLINE in ms]}
deadline_ms=${2:-1000}
host=${BROKER_HOST:-127.0.0.1}
port=${BROKER_PORT:-1883}
prefix=${PREFIX:-splitplace/v1}
application=${APPLICATION:-mnist}

client="shell-$$"
task="$(date +%s)"
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# The answer topic follows from the two names, so it can be subscribed to before the task is sent.
mosquitto_sub -V mqttv5 -h "$host" -p "$port" -q 1 -C 1 -W 30 -t "$prefix/answer/$client/$task" >"$answer" &
subscriber=$!
sleep 0.3 # until it has subscribed

mosquitto_pub -V mqttv5 -h "$host" -p "$port" -q 1 -t "$prefix/task/$application/$client/$task" -f "$picture" \
    -D publish user-property deadline_ms "$deadline_ms"

wait "$subscriber" || { echo "no answer" >&2; exit 1; }
cat "$answer"
