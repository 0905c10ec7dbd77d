package rtnl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Forwarding tells whether IPv4 packets that come in by a link of the calling
// thread's namespace may be forwarded. It is the link's own setting, which the
// namespace's ip_forward overwrites whenever someone changes that. When there is no
// such link, the error is [fs.ErrNotExist].
func Forwarding(link string) (bool, error) {
	b, err := os.ReadFile(forwardingPath(link))
	if err != nil {
		return false, fmt.Errorf("read forwarding of %s: %w", link, err)
	}
	return strings.TrimSpace(string(b)) == "1", nil
}

// SetForwarding sets what [Forwarding] tells, and neither other links nor the
// namespace's ip_forward.
func SetForwarding(link string, on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	f, err := os.OpenFile(forwardingPath(link), os.O_WRONLY, 0) // never makes it
	if err == nil {
		_, err = f.WriteString(value)
		err = errors.Join(err, f.Close())
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: it takes root, and /proc/sys to be writable", err)
	}
	if err != nil {
		return fmt.Errorf("set forwarding of %s to %s: %w", link, value, err)
	}
	return nil
}

func forwardingPath(link string) string { return "/proc/sys/net/ipv4/conf/" + link + "/forwarding" }
