# Targets for people; what they do is in scripts/ and in Go.
SHELL := bash
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := -s -w -X github.com/brfuse/brfuse/internal/buildinfo.version=$(VERSION)

.DEFAULT_GOAL := help
.PHONY: demo test test-unit lint check capacity soak bench bench-quick bench-insn bench-attach bench-cni bench-cluster build proto fmt deps deps-bench clean help

demo: deps ## Boot a VM, give pods in it their own vNICs, and show it (as root)
	scripts/leaves-nothing go run ./integration/demo

test: deps-bench ## Run all tests, those on real guests too (as root)
	scripts/leaves-nothing scripts/test

test-unit: ## Run the tests that take neither root nor a guest
	scripts/test unit

lint: ## Run the linters
	go tool -modfile=tools/go.mod golangci-lint run

check: ## Run the linters and all other checks that are no tests
	scripts/check

capacity: deps ## Fill the largest VM with vNICs, and say what ended it: a quarter of an hour (as root)
	BRFUSE_CAPACITY_MAX=all scripts/leaves-nothing go test -count=1 -timeout 40m -v -run '^TestIntegrationCapacity' ./integration/

soak: deps ## Attach and detach 2,000 times through a pool, and count what is left (as root)
	BRFUSE_SOAK=2000 scripts/leaves-nothing go test -count=1 -timeout 40m -v -run '^TestIntegrationSoak$$' ./integration/

bench: deps-bench ## Compare fused pods with nested ones and with a process in the VM, and make the report: bench/out/report (as root)
	mkdir -p bench/out
	scripts/leaves-nothing go run ./bench/net -o bench/out/net.jsonl
	scripts/leaves-nothing go run ./bench/net -rig host -topologies native,nat,fused \
		-workloads tcp_rr/1024,tcp_stream/16384,udp_stream/64 -time 1s -rounds 24 -o bench/out/goals.jsonl
	scripts/leaves-nothing go run ./bench/net -rig host -workloads tcp_stream/16384,iperf3/tcp -time 1s -rounds 9 -o bench/out/cross.jsonl
	scripts/leaves-nothing go run ./bench/net -rig host -topologies native,fused -workloads tcp_stream/16384 -time 1s -rounds 40 -o bench/out/streams.jsonl
	scripts/leaves-nothing go run ./bench/insn -o bench/out/insn.jsonl
	cd bench/plot && go run . net -o ../out/report ../out/{net,goals,cross,streams,insn}.jsonl
	go run ./bench/report -o bench/out/report bench/out/{net,goals,cross,streams,insn}.jsonl

bench-quick: deps-bench ## The same in a few minutes, with the main figures only (as root)
	mkdir -p bench/out
	scripts/leaves-nothing go run ./bench/net -quick -o bench/out/quick.jsonl

bench-insn: deps-bench ## Count the guest's instructions for each packet, under emulation (as root)
	mkdir -p bench/out
	scripts/leaves-nothing go run ./bench/insn -o bench/out/insn.jsonl

bench-attach: deps ## Compare attach, detach and the CNI plugin with their floors, cold and by a pool, in real guests (as root)
	mkdir -p bench/out
	scripts/leaves-nothing go run ./bench/attach -o bench/out/attach.jsonl
	cd integration/engines && ../../scripts/leaves-nothing go run ./bench -docker-rounds 0 -o ../../bench/out/cni.jsonl
	cd bench/plot && go run . -o ../out/performance.svg ../out/attach.jsonl ../out/cni.jsonl
	@echo
	@go run ./bench/goals bench/out/attach.jsonl bench/out/cni.jsonl

bench-cni: deps ## Compare the CNI plugin with bridge, portmap and host-device, and Docker's networks, in a real guest (as root)
	cd integration/engines && ../../scripts/leaves-nothing go run ./bench

bench-cluster: deps ## Compare attaches of 1,000 hypervisors that share an etcd with the bare transactions (as root)
	mkdir -p bench/out
	scripts/leaves-nothing go run ./bench/cluster -pods 16 -o bench/out/cluster.jsonl

build: ## Build static programs into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

proto: ## Generate the code of api/ (needs protoc)
	scripts/proto

fmt: ## Format the code
	go tool -modfile=tools/go.mod golangci-lint fmt

deps: ## Install the Debian packages that the demo and the tests need
	@scripts/deps

deps-bench: ## Install what the benchmarks need beside that: load programs and a C compiler
	@scripts/deps bench

clean: ## Remove what was built; the guest kernel stays in the cache
	rm -rf bin bench/out

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
