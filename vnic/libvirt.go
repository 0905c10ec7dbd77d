package vnic

import (
	"fmt"
	"net/url"
	"path"
	"strings"
)

// LibvirtDomain is a virtual machine that a libvirtd of this machine runs.
type LibvirtDomain struct {
	// Session says that it is a user's own libvirtd, and not the system's.
	Session bool
	// Socket is the path of libvirtd's socket. Empty: the usual one.
	Socket string
	// Name is the domain's.
	Name string
}

// ParseLibvirt reads the address of a domain: libvirt's URI with the domain's name
// behind its path, as in "qemu:///system/web1", or, for a socket at another place
// than usual, "qemu+unix:///system/web1?socket=/path/libvirt-sock". The error is
// [ErrInvalid]; an address on another machine is one.
func ParseLibvirt(s string) (LibvirtDomain, error) {
	fail := func(what string) (LibvirtDomain, error) {
		return LibvirtDomain{}, fmt.Errorf("libvirt domain %q: %s; give qemu:///system/DOMAIN or qemu+unix:///system/DOMAIN?socket=PATH: %w", s, what, ErrInvalid)
	}
	u, err := url.Parse(s)
	if err != nil {
		return fail("not a URI")
	}
	if remote := u.Host != "" || u.User != nil; remote || !strings.HasPrefix(u.Scheme, "qemu") || u.Scheme != "qemu" && u.Scheme != "qemu+unix" {
		if driver, _, _ := strings.Cut(u.Scheme, "+"); driver != "qemu" {
			return fail("only domains of libvirt's QEMU driver can be used")
		}
		return fail("it is on another machine, or reached as if it were: run brfused on the hypervisor itself")
	}
	mode, name, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if !ok || mode != "system" && mode != "session" || u.Opaque != "" || u.Fragment != "" {
		return fail("no domain behind system/ or session/")
	}
	if err := checkDomain(name); err != "" {
		return fail(err)
	}
	d := LibvirtDomain{Session: mode == "session", Name: name}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fail("its parameters can't be read")
	}
	for key, values := range query {
		if key != "socket" || len(values) != 1 {
			return fail(fmt.Sprintf("parameter %s is unknown or repeated", key))
		}
		d.Socket = values[0]
		if !path.IsAbs(d.Socket) || path.Clean(d.Socket) != d.Socket || strings.ContainsRune(d.Socket, 0) {
			return fail("its socket is no clean absolute path")
		}
	}
	return d, nil
}

// maxDomain bounds the name of a domain, in bytes, so that it fits messages.
const maxDomain = 255

func checkDomain(name string) string {
	switch {
	case name == "":
		return "no domain's name"
	case len(name) > maxDomain:
		return fmt.Sprintf("the domain's name is longer than %d bytes", maxDomain)
	case strings.Contains(name, "/"):
		return "the domain's name has a slash"
	case strings.IndexFunc(name, func(r rune) bool { return r < 0x20 || r == 0x7f }) >= 0:
		return "the domain's name has unprintable characters"
	}
	return ""
}

// URI is what libvirt's own tools connect to.
func (d LibvirtDomain) URI() string { return d.uri("") }

// String is the address that [ParseLibvirt] reads: the same for the same domain.
func (d LibvirtDomain) String() string { return d.uri("/" + url.PathEscape(d.Name)) }

func (d LibvirtDomain) uri(domain string) string {
	mode := "system"
	if d.Session {
		mode = "session"
	}
	if d.Socket == "" {
		return "qemu:///" + mode + domain
	}
	return "qemu+unix:///" + mode + domain + "?socket=" + strings.ReplaceAll(url.QueryEscape(d.Socket), "%2F", "/")
}
