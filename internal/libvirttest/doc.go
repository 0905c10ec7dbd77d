// Package libvirttest starts a libvirtd for tests: Debian's, in namespaces of its
// own for mounts and processes, with its own configuration, state and sockets. It
// sees nothing of a libvirtd that the machine runs, and that one nothing of it.
//
// A [Daemon] can be killed and started again while its domains go on. Close, and
// the end of the program that started it, whatever its cause, end libvirtd and all
// of its QEMUs. After Close nothing stays behind; a program that is killed leaves a
// folder among the temporary files.
//
// Domains run as root, unconfined, with no cgroups of their own. They share the
// machine's files but for /run and libvirt's own folders in /etc and /var: paths
// in their XML, as those of channels and disks, must be elsewhere, in /tmp for
// instance. libvirt's networks and storage pools are not set up.
//
// What is needed: root, and Debian's packages libvirt-daemon,
// libvirt-daemon-driver-qemu and libvirt-clients, none of which brings a service.
package libvirttest
