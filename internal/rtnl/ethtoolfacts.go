package rtnl

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Facts that are looked for by name.
const (
	factChannels = "channels"
	factSpeed    = "speed"
	factSpread   = "receive hash"
)

// ethtoolGets are the plain questions of ethtool: a command and the size in
// bytes of what the kernel answers with, the command included.
var ethtoolGets = []struct {
	name string
	cmd  uint32
	size int
}{
	{"offloads", unix.ETHTOOL_GFEATURES, 8 + 4*16},
	{factChannels, unix.ETHTOOL_GCHANNELS, 36},
	{"rings", unix.ETHTOOL_GRINGPARAM, 36},
	{"coalescing", unix.ETHTOOL_GCOALESCE, 92},
	{"private flags", unix.ETHTOOL_GPFLAGS, 8},
	{"wake-on-lan", unix.ETHTOOL_GWOL, 20},
	{"message level", unix.ETHTOOL_GMSGLVL, 8},
	{"pause", unix.ETHTOOL_GPAUSEPARAM, 16},
	{"energy saving", unix.ETHTOOL_GEEE, 40},
}

// featureBlocks is for how many words of 32 features there is room.
const featureBlocks = 4

// EthtoolFacts returns what a link is set to that only its driver knows: features,
// channels, rings, coalescing, speed, how it spreads what it receives. What the
// driver doesn't have is not in it, and not asked for when before, from another
// time, shows that it hasn't.
func (c *Conn) EthtoolFacts(name string, before Facts) (Facts, error) {
	f := Facts{}
	has := func(what string) bool { _, ok := before[what]; return ok || len(before) == 0 }
	var buf [128]byte
	for _, q := range ethtoolGets {
		if !has(q.name) {
			continue
		}
		clear(buf[:])
		*(*uint32)(unsafe.Pointer(&buf)) = q.cmd
		if q.cmd == unix.ETHTOOL_GFEATURES {
			*(*uint32)(unsafe.Pointer(&buf[4])) = featureBlocks
		}
		if err := f.ask(c, name, q.name, buf[:q.size]); err != nil {
			return nil, err
		}
	}
	if has(factSpeed) {
		if err := f.speed(c, name); err != nil {
			return nil, err
		}
	}
	if has(factSpread) {
		return f, f.spread(c, name)
	}
	return f, nil
}

// Queues returns how many queue pairs there are, or 0 when the facts don't tell.
func (f Facts) Queues() int {
	b := []byte(f[factChannels])
	if len(b) < int(unsafe.Sizeof(channels{})) {
		return 0
	}
	return int((*channels)(unsafe.Pointer(&b[0])).combinedCount)
}

// ask puts the answer to one question, which is in buf, into f.
func (f Facts) ask(c *Conn, name, what string, buf []byte) error {
	switch err := c.ethtool(name, unsafe.Pointer(&buf[0])); {
	case errors.Is(err, unix.EOPNOTSUPP):
	case err != nil:
		return fmt.Errorf("ask for the %s of %s: %w", what, name, notExist(err))
	default:
		f[what] = string(buf)
	}
	return nil
}

// speed asks for what an administrator can say of a virtual NIC's speed. The kernel
// wants to be told first how many words of link modes it has.
func (f Facts) speed(c *Conn, name string) error {
	const maxWords = 16
	var buf [48 + 3*4*maxWords]byte
	words := (*int8)(unsafe.Pointer(&buf[15])) // link_mode_masks_nwords
	set := func() { *(*uint32)(unsafe.Pointer(&buf)) = unix.ETHTOOL_GLINKSETTINGS }
	set()
	if err := f.ask(c, name, factSpeed, buf[:]); err != nil || f[factSpeed] == "" {
		return err
	}
	n := -*words
	delete(f, factSpeed)
	if n <= 0 || n > maxWords {
		return nil
	}
	clear(buf[:])
	set()
	*words = n
	return f.ask(c, name, factSpeed, buf[:])
}

// spread asks how a link spreads what it receives over its queues, if it can.
func (f Facts) spread(c *Conn, name string) error {
	const head, maxSize = 24, 4096
	buf := make([]byte, head+maxSize)
	word := func(i int) *uint32 { return (*uint32)(unsafe.Pointer(&buf[4*i])) }
	*word(0) = unix.ETHTOOL_GRSSH
	if err := f.ask(c, name, factSpread, buf[:head]); err != nil || f[factSpread] == "" {
		return err
	}
	indir, key := *word(2), *word(3)
	if n := 4*indir + key; n == 0 || n > maxSize {
		return nil
	}
	clear(buf)
	*word(0), *word(2), *word(3) = unix.ETHTOOL_GRSSH, indir, key
	return f.ask(c, name, factSpread, buf[:head+4*indir+key])
}
