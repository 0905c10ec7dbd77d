# Targets for people; what they do is in scripts/ and in Go.
SHELL := bash
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := -s -w -X github.com/brfuse/brfuse/internal/buildinfo.version=$(VERSION)

.DEFAULT_GOAL := help
.PHONY: demo test test-unit lint check bench-attach bench-cni build proto fmt deps clean help

demo: deps ## Boot a VM, give pods in it their own vNICs, and show it (as root)
	scripts/leaves-nothing go run ./integration/demo

test: deps ## Run all tests, those on real guests too (as root)
	scripts/leaves-nothing scripts/test

test-unit: ## Run the tests that take neither root nor a guest
	scripts/test unit

lint: ## Run the linters
	go tool -modfile=tools/go.mod golangci-lint run

check: ## Run the linters and all other checks that are no tests
	scripts/check

bench-attach: deps ## Compare attach and detach with the raw floor, in a real guest (as root)
	scripts/leaves-nothing go run ./bench/attach

bench-cni: deps ## Compare the CNI plugin with bridge, portmap and host-device, and Docker's networks, in a real guest (as root)
	cd integration/engines && ../../scripts/leaves-nothing go run ./bench

build: ## Build static programs into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

proto: ## Generate the code of api/ (needs protoc)
	scripts/proto

fmt: ## Format the code
	go tool -modfile=tools/go.mod golangci-lint fmt

deps: ## Install the Debian packages that the demo and the tests need
	@scripts/deps

clean: ## Remove what was built; the guest kernel stays in the cache
	rm -rf bin

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
