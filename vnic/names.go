package vnic

import (
	"fmt"
	"strings"
)

const nameChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

// checkName checks the name of a network or VM.
func checkName(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%s name is empty: %w", what, ErrInvalid)
	case len(s) > 63:
		return fmt.Errorf("%s name %q is longer than 63 characters: %w", what, s, ErrInvalid)
	case strings.Trim(s, nameChars) != "" || strings.ContainsAny(s[:1], "-_."):
		return fmt.Errorf("%s name %q: use letters, digits, '-', '_' and '.', a letter or digit first: %w", what, s, ErrInvalid)
	}
	return nil
}

// CheckVMName checks the name of a VM. The error is [ErrInvalid].
func CheckVMName(s string) error { return checkName("vm", s) }

// CheckNetworkName checks the name of a network. The error is [ErrInvalid].
func CheckNetworkName(s string) error { return checkName("network", s) }

// CheckPodName checks the name of a pod: up to 253 characters, as Kubernetes
// allows them, with '/' between a namespace and a name. The error is [ErrInvalid].
func CheckPodName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("pod name is empty: %w", ErrInvalid)
	case len(s) > 253:
		return fmt.Errorf("pod name of %d characters is longer than 253: %w", len(s), ErrInvalid)
	case strings.Trim(s, nameChars+"/") != "" || strings.ContainsAny(s[:1], "-_./"):
		return fmt.Errorf("pod name %q: use letters, digits, '-', '_', '.' and '/', a letter or digit first: %w", s, ErrInvalid)
	}
	return nil
}

// CheckInterface checks an interface name by the rules of the kernel
// (dev_valid_name in net/core/dev.c), and refuses '%', which a rename would
// read as a pattern. The error is [ErrInvalid].
func CheckInterface(s string) error {
	switch {
	case s == "" || s == "." || s == ".." || s == "lo":
		return fmt.Errorf("interface name %q is reserved: %w", s, ErrInvalid)
	case len(s) > maxIfname:
		return fmt.Errorf("interface name %q is longer than %d characters: %w", s, maxIfname, ErrInvalid)
	case strings.ContainsAny(s, "/:%") || strings.IndexFunc(s, func(r rune) bool { return r < 0x21 || r > 0x7e }) >= 0:
		return fmt.Errorf("interface name %q: '/', ':', '%%', spaces and unprintable characters are not allowed: %w", s, ErrInvalid)
	}
	return nil
}
