# Tests are in ./test.sh.

.PHONY: bench
bench: # measure everything beside nginx, nchan and HAProxy, and write docs/benchmarks.md; an hour, on a quiet machine
	go run ./bench -docs docs
