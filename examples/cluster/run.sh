#!/bin/bash
# Runs three ssegate nodes on this machine, as one cluster on Redis, RabbitMQ and Consul, which must run already.
# Ctrl-C lets all of them leave, and a second one at once.
#
#   SSEGATE_CLUSTER_REDIS     redis://127.0.0.1:6379/0
#   SSEGATE_CLUSTER_RABBITMQ  amqp://guest:guest@127.0.0.1:5672/
#   SSEGATE_CLUSTER_CONSUL    http://127.0.0.1:8500
#   SSEGATE_UPSTREAM          http://127.0.0.1:8000, the service behind
#   PORT                      8081: the nodes listen there and on the next two, for themselves on 10 more
#   BIN                       the ssegate to run; built from this repository when not set
#
# ssegate reads the variables itself; ssegate.toml has their defaults.
set -euo pipefail
cd "$(dirname "$0")"

port=${PORT:-8081}
bin=${BIN:-}
if [ -z "$bin" ]; then
	built=$(mktemp -d)
	trap 'rm -rf "$built"' EXIT
	bin=$built/ssegate
	echo "run.sh: builds ssegate"
	go build -o "$bin" ssegate/cmd/ssegate
fi
"$bin" check -config ssegate.toml

set -m # a process group for each node: Ctrl-C is for this script alone
pids=()
leave() {
	[ ${#pids[@]} = 0 ] || kill -TERM "${pids[@]}" 2>/dev/null || true # one that is gone need not be told
}
trap leave INT TERM HUP

for i in 0 1 2; do
	"$bin" -config ssegate.toml -node.id "node-$((i + 1))" \
		-listen.public "127.0.0.1:$((port + i))" -listen.internal "127.0.0.1:$((port + 10 + i))" &
	pids+=($!)
	echo "run.sh: node-$((i + 1)) is process $!: http://127.0.0.1:$((port + i))/, http://127.0.0.1:$((port + 10 + i))/readyz"
done

# wait returns at each signal, and when a node ends; the others go on.
while [ -n "$(jobs -pr)" ]; do
	wait -n || true
done
echo "run.sh: all nodes have left"
