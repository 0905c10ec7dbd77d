// Package deployed holds no code: its test boots a guest with systemd, udev and
// systemd-networkd, installs what is in deploy/ there, and looks whether brfuse's
// programs can do their work under their units. It takes root and QEMU:
//
//	go test ./integration/deployed
package deployed
