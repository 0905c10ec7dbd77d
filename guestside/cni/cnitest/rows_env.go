package cnitest

import (
	"encoding/json"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// envRows are about what can be wrong with a call.
func envRows() []row {
	return []row{
		{"VERSION", func(b *bench) {
			v, err := b.cni.GetVersionInfo(b.ctx, Brfuse)
			require.NoError(b.t, err)
			assert.Equal(b.t, []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}, v.SupportedVersions())
		}},
		{"a version that is not supported", func(b *bench) {
			for _, v := range []string{"0.2.0", "2.0.0", ""} {
				b.version = v
				for _, verb := range []string{"ADD", "DEL"} {
					_, err := b.exec(b.ctx, verb, pod{id: "x", path: "/run/netns/x"}, "eth0", b.conf(nil))
					b.fails(err, 1, "1.1.0")
				}
			}
			for verb, v := range map[string]string{"CHECK": "0.3.1", "GC": "1.0.0", "STATUS": "1.0.0"} {
				b.version = v
				_, err := b.exec(b.ctx, verb, pod{id: "x", path: "/run/netns/x"}, "eth0", b.conf(nil))
				b.fails(err, 1, verb)
			}
		}},
		{"bad netns", func(b *bench) {
			for _, path := range []string{"/run/netns/cnitest-never", "/bin/sh", "relative", "/proc/self/ns/mnt"} {
				_, err := b.exec(b.ctx, "ADD", pod{id: "x", path: path}, "eth0", b.conf(nil))
				b.fails(err, 4, "CNI_NETNS", path)
			}
			b.empty()
		}},
		{"netns is the vm's own", func(b *bench) {
			_, err := b.exec(b.ctx, "ADD", pod{id: "x", path: "/proc/self/ns/net"}, "eth0", b.conf(nil))
			b.fails(err, 4, "CNI_NETNS")
			b.empty()
		}},
		{"bad interface name", func(b *bench) {
			p := b.pod()
			for _, name := range []string{"a/b", "a:b", "a b", "..", "longer-than-fifteen", "lo", "eth%d", ""} {
				_, err := b.exec(b.ctx, "ADD", p, name, b.conf(nil))
				b.fails(err, 4)
			}
			for _, name := range []string{"lo", "eth%d"} {
				_, err := b.exec(b.ctx, "ADD", p, name, b.conf(nil))
				b.fails(err, 4, "CNI_IFNAME", name)
			}
			b.empty()
		}},
		{"bad container ID", func(b *bench) {
			p := b.pod()
			for _, id := range []string{"", "../x", "-x", "a b"} {
				_, err := b.exec(b.ctx, "ADD", pod{id: id, path: p.path}, "eth0", b.conf(nil))
				b.fails(err, 4)
			}
		}},
		{"bad JSON", func(b *bench) {
			for _, verb := range []string{"ADD", "DEL", "CHECK", "GC", "STATUS"} {
				_, err := b.execRaw(b.ctx, verb, pod{id: "x", path: "/run/netns/x"}, "eth0", []byte(`{"cniVersion":`))
				b.fails(err, 6)
			}
		}},
		{"bad values", func(b *bench) {
			p := b.pod()
			for key, value := range map[string]any{
				"mtu": "big", "queues": -1, "routes": []any{map[string]any{"dst": "10.0.0.0/8", "gw": "fd00::1"}}, "timeout": -1, "socket": "x",
			} {
				_, err := b.exec(b.ctx, "ADD", p, "eth0", b.conf(map[string]any{key: value}))
				b.fails(err, 7, key)
			}
			_, err := b.exec(b.ctx, "ADD", p, "eth0", b.conf(map[string]any{"runtimeConfig": map[string]any{"deviceID": "0000:04:00.5"}}))
			b.fails(err, 2, "deviceID", "0000:04:00.5")
		}},
		{"errors name the version", func(b *bench) {
			_, err := b.Shell(b.ctx, "CNI_COMMAND=ADD CNI_CONTAINERID=x CNI_NETNS=/nowhere CNI_IFNAME=eth0 CNI_PATH="+b.Dir+" "+
				b.Dir+"/"+Brfuse+` <<'X' >`+b.State+`/out
{"cniVersion":"1.0.0","name":"pods","type":"brfuse"}
X`)
			require.Error(b.t, err, "the exit code tells")
			out, err := b.Shell(b.ctx, "cat "+b.State+"/out; rm "+b.State+"/out")
			require.NoError(b.t, err)
			var e struct {
				CNIVersion, Msg string
				Code            int
			}
			require.NoError(b.t, json.Unmarshal([]byte(out), &e), "%s", out)
			assert.Equal(b.t, "1.0.0", e.CNIVersion)
			assert.Equal(b.t, 4, e.Code)
			assert.Contains(b.t, e.Msg, "CNI_NETNS")
		}},
	}
}
