#!/bin/bash
# Checks and tests the whole project, with the real services and clients that it works with.
#
#   ./test.sh              everything
#   ./test.sh ./hub/...    these packages
#
# It wants Debian 12 or the like, with Go. What else is missing it installs with apt, for which it must be root. What it
# builds it keeps in the user's cache folder (SSEGATE_TEST_CACHE names another), so that only the first run is long:
# about a quarter of an hour, most of it Consul. Nothing else on the machine is changed, and no service is left running.
set -euo pipefail
cd "$(dirname "$0")"

export SSEGATE_TEST_CACHE=${SSEGATE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ssegate}
cache=$SSEGATE_TEST_CACHE
mkdir -p "$cache"
log=$cache/test.sh.log
policy=/usr/sbin/policy-rc.d

say() { echo "test.sh: $*"; }
die() { say "$*"; exit 1; }

# quietly runs a command and shows what it printed only when it fails.
quietly() {
	if ! "$@" >"$log" 2>&1; then
		tail -n 60 "$log"
		die "failed: $*"
	fi
}

# key is the key of the content of files and folders, as internal/gatetest/built computes it.
key() {
	find "$@" -type f | LC_ALL=C sort | xargs cat | sha256sum | cut -c1-12
}

have() { command -v "$1" >/dev/null 2>&1; }

# major prints the first number of a version.
major() { "$@" 2>/dev/null | grep -oE '[0-9]+' | head -n 1; }

# find_python prints a Python that is new enough for the pinned packages and can make environments.
find_python() {
	local p
	for p in python3 /usr/bin/python3; do
		if "$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
			echo "$p"
			return
		fi
	done
	return 1
}

# missing prints the Debian packages of what is not there.
missing() {
	[ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
	have gcc || echo gcc libc6-dev # the race detector's
	have curl || echo curl
	have redis-server || echo redis-server
	[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || have rabbitmq-server || echo rabbitmq-server
	have nginx || [ -x /usr/sbin/nginx ] || echo nginx
	have chromium || echo chromium
	find_python >/dev/null || echo python3 python3-venv
	have javac && [ "$(major javac -version)" -ge 17 ] || echo openjdk-17-jdk-headless
	have mvn || echo maven
	have node || echo nodejs
	have npm || echo npm
}

# install installs Debian packages without starting the services that come with them.
install() {
	[ "$(id -u)" = 0 ] || die "not root; install these first: $*"
	if [ ! -e $policy ]; then
		trap 'rm -f $policy' EXIT
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod 755 $policy
	fi
	export DEBIAN_FRONTEND=noninteractive
	quietly apt-get -q -o DPkg::Lock::Timeout=600 update
	quietly apt-get -q -y -o DPkg::Lock::Timeout=600 --no-install-recommends install "$@"
	if [ -n "$(trap -p EXIT)" ]; then
		rm -f $policy
		trap - EXIT
	fi
}

# build makes something in the cache folder unless it is there: build NAME WHAT COMMAND..., where the command is told
# the path. A build that was broken off is begun anew.
build() {
	local path=$cache/$1 what=$2
	shift 2
	[ -e "$path" ] && return
	say "builds $what in $path"
	rm -rf "$path.new"
	quietly "$@" "$path.new"
	mv "$path.new" "$path"
}

build_consul() {
	CGO_ENABLED=0 go -C internal/gatetest/consul build -trimpath -ldflags="-s -w" -o "$1" github.com/hashicorp/consul
}

requirements=(examples/fastapi-deepsearch/requirements.txt examples/push-python/requirements.txt internal/gatetest/clients/requirements.txt)
build_venv() {
	"$(find_python)" -m venv "$1" &&
		"$1/bin/python" -m pip install -q --disable-pip-version-check "${requirements[@]/#/-r}"
}

build_clients() {
	mkdir "$1" &&
		cp internal/gatetest/clients/package.json internal/gatetest/clients/package-lock.json "$1" &&
		npm --prefix "$1" ci --no-audit --no-fund
}

spring=(examples/spring-agent/pom.xml examples/spring-agent/src)
build_spring() {
	local work
	work=$(mktemp -d) &&
		cp -r "${spring[@]}" "$work" &&
		mvn -q -B -f "$work/pom.xml" package &&
		cp "$work/target/spring-agent.jar" "$1" &&
		rm -rf "$work"
}

# prepare brings all that the tests need. A second run beside this one waits for it.
prepare() {
	flock 9
	local packages
	packages=$(missing | tr '\n' ' ')
	if [ -n "$packages" ]; then
		say "installs with apt: $packages"
		# shellcheck disable=SC2086 # one word a package
		install $packages
		packages=$(missing | tr '\n' ' ')
		[ -z "$packages" ] || die "still missing: $packages"
	fi
	[ "$(major node --version)" -ge 18 ] || die "node is $(node --version), and the clients want 18 or newer"

	build consul "Consul (minutes)" build_consul
	build "venv-$(key "${requirements[@]}")" "the Python environment" build_venv
	build "clients-$(key internal/gatetest/clients/package-lock.json)" "the JavaScript clients" build_clients
	build "spring-$(key "${spring[@]}").jar" "the Spring example" build_spring
}

have go || die "no Go in PATH"
prepare 9>"$cache/lock"

[ $# -gt 0 ] || set -- ./...
failed=()

# check runs one check, with all that it prints shown, and goes on whatever it says.
check() {
	say "$*"
	"$@" || failed+=("$*")
}

formatted() {
	local files
	files=$(gofmt -l .)
	[ -z "$files" ] || { echo "$files"; return 1; }
}

check formatted "(gofmt -l .)"
check go vet "$@"
check go tool staticcheck "$@"
check go fix -diff "$@"
# Two packages at once: they share two cores with the services that they start.
check go test -race -count=1 -p=2 -timeout=30m "$@"

[ ${#failed[@]} = 0 ] || die "failed: $(printf '%s; ' "${failed[@]}")"
say "all is well"
