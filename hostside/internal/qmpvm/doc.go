// Package qmpvm runs the virtual machines of QEMU over QMP. It is the one place
// that knows go-qemu.
//
// [Conn] is a QMP connection of its own kind. It implements go-qemu's
// Monitor and keeps its Command and Event, but not its SocketMonitor, whose
// replies share memory with its read buffer, which stops for good when an event
// isn't read, and which knows neither ids, deadlines, error classes nor lines
// over 64 KiB. [VM] stands on it and implements the backend seam of the host
// half: which slots are free, plug, unplug, list.
package qmpvm
