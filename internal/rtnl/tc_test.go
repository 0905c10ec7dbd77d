package rtnl_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/vishvananda/netlink"

	"github.com/brfuse/brfuse/internal/rtnl"
)

func TestIntegrationShape(t *testing.T) {
	inNewNetns(t, func(h *rtnl.Handle) (err error) {
		conn, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, conn.Close()) }()
		files, err := rtnl.OpenTap("brf0000000001", 1)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rtnl.CloseFiles(files)) }()
		link, err := h.HostLink("brf0000000001")
		if err != nil {
			return err
		}
		slow, fast := rtnl.Shape{Rate: 1_000_000, Burst: 20_000, Queue: 50_000}, rtnl.Shape{Rate: 5_000_000_000, Burst: 20_000, Queue: 60_000}
		for _, step := range []struct {
			name string
			req  rtnl.Request
			want string
		}{
			{"a probe makes nothing", rtnl.ProbeShape(link), ""},
			{"clear where there is none", rtnl.ClearShape(link), ""},
			{"set", rtnl.SetShape(link, slow), "tbf bf:0 1000000 50000"},
			{"set otherwise", rtnl.SetShape(link, fast), "tbf bf:0 5000000000 60000"},
			{"a probe leaves what is there", rtnl.ProbeShape(link), "tbf bf:0 5000000000 60000"},
			{"clear", rtnl.ClearShape(link), ""},
		} {
			if err := conn.Do(step.req); err != nil {
				return fmt.Errorf("%s: %w", step.name, err)
			}
			got, err := shapes(link)
			if err != nil {
				return err
			}
			assert.Equal(t, step.want, got, step.name)
		}
		return nil
	})
}

// shapes returns a link's queueing disciplines as text. A link that is down has
// none but those that were put there.
func shapes(link rtnl.HostLink) (string, error) {
	all, err := netlink.QdiscList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: link.Index}})
	var text strings.Builder
	for _, q := range all {
		text.WriteString(q.Type() + " " + netlink.HandleStr(q.Attrs().Handle))
		if tbf, ok := q.(*netlink.Tbf); ok {
			fmt.Fprintf(&text, " %d %d", tbf.Rate, tbf.Limit)
		}
	}
	return text.String(), err
}
