// Package vmlab boots real QEMU guests for tests, benchmarks and the demo,
// runs commands in them and makes sure that none of them outlives its maker.
//
// A [Lab] holds what guests share: Debian's cloud kernel, downloaded once into
// a cache, and the accelerator, KVM where a probe guest has booted under it and
// software emulation elsewhere. An [Image] says what is in a guest; [Lab.Boot]
// starts one, and a [VM] runs commands in it, over a virtio-serial port of its
// own, so that nothing depends on the network under test:
//
//	lab, err := vmlab.Open(ctx, vmlab.Options{})
//	initrd, err := lab.Build(ctx, dir+"/initrd", vmlab.Image{Modules: []string{"veth"}})
//	vm, err := lab.Boot(ctx, vmlab.Config{Name: "vm1", Dir: dir, Initrd: initrd})
//	defer vm.Close()
//	res, err := vm.Run(ctx, "uname", "-a")
//
// Every call that may wait takes a context and is bounded by it. Processes on
// the host are killed by the kernel when the process that made them dies,
// whatever it died of; a [NetNS] has no name and goes with them.
//
// Environment: BRFUSE_CACHE is the cache (default: brfuse in the user's cache
// folder); BRFUSE_ACCEL=kvm or tcg skips the probe.
//
// It needs qemu-system-x86_64, busybox-static, iproute2 and, for the kernel,
// apt-get and dpkg-deb: scripts/deps installs them. Only amd64 is supported.
package vmlab
