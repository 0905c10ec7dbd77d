package guestside

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

func news(changes ...rtnl.LinkChange) rtnl.Update { return rtnl.Update{Changes: changes} }

func TestLinksForgetOnlyTheDeviceMeant(t *testing.T) {
	one, two := vnic.NewMAC(), vnic.NewMAC()
	ls := newLinks()
	ls.apply(news(rtnl.LinkChange{Link: rtnl.Link{Index: 5, Permanent: one}}))
	ls.forget(5, one)
	_, ok := ls.find(one)
	assert.False(t, ok)

	// Another device takes the index before the first one is forgotten.
	ls.apply(news(rtnl.LinkChange{Link: rtnl.Link{Index: 5, Permanent: two}}))
	ls.forget(5, one)
	_, ok = ls.find(two)
	assert.True(t, ok)
}

func TestLinksAwaitAChangedMAC(t *testing.T) {
	mac := vnic.NewMAC()
	ls := newLinks()
	_, appeared := ls.await(mac)
	ls.apply(news(rtnl.LinkChange{Link: rtnl.Link{Index: 4, MAC: mac, Permanent: vnic.NewMAC()}}))
	select {
	case <-appeared:
		assert.Fail(t, "a device that was given the mac passes for the one made with it")
	default:
	}
	ls.apply(news(rtnl.LinkChange{Link: rtnl.Link{Index: 5, MAC: vnic.NewMAC(), Permanent: mac}}))
	<-appeared
	l, ok := ls.find(mac)
	assert.True(t, ok)
	assert.Equal(t, 5, l.Index)
	ls.apply(rtnl.Update{Full: true})
	_, ok = ls.find(mac)
	assert.False(t, ok, "what a full update doesn't have is gone")
}
