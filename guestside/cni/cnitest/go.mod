module github.com/brfuse/brfuse/guestside/cni/cnitest

go 1.26.0

require (
	github.com/brfuse/brfuse v0.0.0
	github.com/containernetworking/cni v1.3.1
	github.com/stretchr/testify v1.12.1
	github.com/vishvananda/netlink v1.3.1
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/spf13/cobra v1.10.2 // indirect
	github.com/spf13/pflag v1.0.10 // indirect
	github.com/vishvananda/netns v0.0.5 // indirect
	go.opentelemetry.io/otel v1.47.0 // indirect
	go.opentelemetry.io/otel/trace v1.47.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/brfuse/brfuse => ../../..

tool github.com/containernetworking/cni/cnitool
