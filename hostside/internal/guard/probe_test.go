package guard

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// kernelWithout answers as a kernel does whose module for an expression of a family
// can't be loaded.
func kernelWithout(name string, family nftables.TableFamily, errno unix.Errno) nftables.ConnOption {
	return nftables.WithTestDial(func(req []netlink.Message) ([]netlink.Message, error) {
		for _, m := range req {
			newRule := m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWRULE
			if newRule && m.Data[0] == byte(family) && bytes.Contains(m.Data, exprName(name)) {
				return nil, errno
			}
		}
		return req, nil
	})
}

// exprName is the attribute that names an expression.
func exprName(name string) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(name)+1))
	b = binary.NativeEndian.AppendUint16(b, unix.NFTA_EXPR_NAME)
	return append(append(b, name...), 0)
}

func TestProbeNamesTheModule(t *testing.T) {
	tests := []struct {
		name     string
		features []feature
		lacks    string
		family   nftables.TableFamily
		want     string // empty: nothing
	}{
		{"nothing of the base", base, "none", inBridge, ""},
		{"bridge meta", base, "meta", inBridge, "nft_meta_bridge"},
		{"objref", base, "objref", inBridge, "nft_objref"},
		{"exthdr", base, "exthdr", inBridge, "CONFIG_NFT_EXTHDR"},
		{"masq", base, "masq", inInet, "nft_masq"},
		{"nothing of publishing", forPublishing, "none", inInet, ""},
		{"fib", forPublishing, "fib", inInet, "nft_fib_inet"},
		{"ct", forPublishing, "ct", inInet, "nft_ct "},
		{"nat", forPublishing, "nat", inInet, "nft_nat"},
		{"numgen", forServices, "numgen", inInet, "nft_numgen"},
		{"limit", forLimits, "limit", inBridge, "nft_limit"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := nftables.New(kernelWithout(tt.lacks, tt.family, unix.ENOENT))
			require.NoError(t, err)
			err = probe(c, tt.features)
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, vnic.ErrUnsupported)
			assert.ErrorContains(t, err, tt.want)
		})
	}
}

// Who lacks the right knows nothing of the kernel.
func TestProbeWithoutTheRight(t *testing.T) {
	c, err := nftables.New(kernelWithout("objref", inBridge, unix.EPERM))
	require.NoError(t, err)
	err = probe(c, base)
	require.ErrorIs(t, err, unix.EPERM)
	require.NotErrorIs(t, err, vnic.ErrUnsupported)
	assert.ErrorContains(t, err, "CAP_NET_ADMIN")
}

// What the rules use has been looked for: an expression that no probe has would
// fail without a word of what is missing.
func TestEveryExpressionIsProbed(t *testing.T) {
	var sent bytes.Buffer
	c, err := nftables.New(nftables.WithTestDial(func(req []netlink.Message) ([]netlink.Message, error) {
		for _, m := range req {
			sent.Write(m.Data)
		}
		return req, nil
	}))
	require.NoError(t, err)
	for _, features := range [][]feature{base, forPublishing, forServices, forLimits} {
		require.NoError(t, probe(c, features))
	}
	rules := [][]expr.Any{masquerade(netip.MustParsePrefix("10.9.0.0/24")), hairpin(), addressedToHost(), translate(at6, true)}
	chains := bridgeRules()
	for _, m := range serviceMaps {
		rules = append(rules, m.serve(), m.masquerade())
		chains = append(chains, spread{m.v6, 3}.rules()...)
	}
	for _, chain := range chains {
		rules = append(rules, chain.rules...)
	}
	for _, e := range slices.Concat(rules...) {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		require.NoError(t, err)
		attrs, err := netlink.UnmarshalAttributes(b)
		require.NoError(t, err)
		require.Equal(t, uint16(unix.NFTA_EXPR_NAME), attrs[0].Type)
		name := unix.ByteSliceToString(attrs[0].Data)
		assert.True(t, bytes.Contains(sent.Bytes(), exprName(name)), name)
	}
}
