package cnitest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// limit bounds a row of the table; a guest without KVM is slow.
const limit = 2 * time.Minute

// bench is what a row of the table works with.
type bench struct {
	Env
	t   *testing.T
	ctx context.Context //nolint:containedctx // the row's, which ends with its test
	cni *libcni.CNIConfig
	// version is that of the specification.
	version string
	network string // of the plugin's configuration
}

// pod is a network namespace with a container ID.
type pod struct {
	id, name, path string
}

func newBench(t *testing.T, e Env) *bench {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	b := &bench{Env: e, t: t, ctx: ctx, version: "1.1.0", network: e.Network.Name}
	b.cni = b.runtime()
	t.Cleanup(b.empty) // after the pods' own
	return b
}

// runtime returns a libcni that knows nothing of what was done before.
func (b *bench) runtime() *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir([]string{b.Dir}, b.t.TempDir(), b.Exec)
}

// pod makes a pod that is removed, with its vNICs, at the end of the row.
func (b *bench) pod() pod {
	b.t.Helper()
	p := pod{id: fmt.Sprintf("c%d", time.Now().UnixNano())}
	p.name = "cnitest-" + p.id
	var err error
	p.path, err = b.AddNetns(b.ctx, p.name)
	require.NoError(b.t, err)
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(b.ctx), limit)
		defer cancel()
		for _, ifname := range []string{"eth0", "net1"} {
			_, err := b.exec(ctx, "DEL", p, ifname, b.conf(nil))
			assert.NoError(b.t, err, "clean up")
		}
		assert.NoError(b.t, b.DelNetns(ctx, p.name), "clean up")
	})
	return p
}

// conf returns the plugin's configuration with more keys.
func (b *bench) conf(more map[string]any) map[string]any {
	c := map[string]any{
		"cniVersion": b.version, "name": "pods", "type": Brfuse, "network": b.network, "socket": b.Socket,
		"capabilities": map[string]bool{"ips": true, "mac": true, "bandwidth": true, "portMappings": true, "dns": true},
	}
	maps.Copy(c, more)
	return c
}

// list returns a list of that plugin and of what comes after it.
func (b *bench) list(conf map[string]any, after ...map[string]any) *libcni.NetworkConfigList {
	b.t.Helper()
	plugins := append([]map[string]any{conf}, after...)
	raw, err := json.Marshal(map[string]any{"cniVersion": conf["cniVersion"], "name": conf["name"], "plugins": plugins})
	require.NoError(b.t, err)
	l, err := libcni.NetworkConfFromBytes(raw)
	require.NoError(b.t, err)
	return l
}

func rt(p pod, ifname string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: p.id, NetNS: p.path, IfName: ifname}
}

// add adds a pod and returns the result in its latest form.
func (b *bench) add(l *libcni.NetworkConfigList, r *libcni.RuntimeConf) (*types100.Result, error) {
	res, err := b.cni.AddNetworkList(b.ctx, l, r)
	if err != nil {
		return nil, err
	}
	return types100.NewResultFromResult(res)
}

func (b *bench) mustAdd(l *libcni.NetworkConfigList, r *libcni.RuntimeConf) *types100.Result {
	b.t.Helper()
	res, err := b.add(l, r)
	require.NoError(b.t, err)
	return res
}

// exec runs the plugin without libcni, which would refuse some calls by itself.
func (b *bench) exec(ctx context.Context, verb string, p pod, ifname string, conf map[string]any) ([]byte, error) {
	raw, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	return b.execRaw(ctx, verb, p, ifname, raw)
}

func (b *bench) execRaw(ctx context.Context, verb string, p pod, ifname string, conf []byte) ([]byte, error) {
	args := &invoke.Args{Command: verb, ContainerID: p.id, NetNS: p.path, IfName: ifname, Path: b.Dir}
	return b.Exec.ExecPlugin(ctx, path.Join(b.Dir, Brfuse), conf, args.AsEnv())
}

// fails checks that a call failed by a code and with these parts in its text.
func (b *bench) fails(err error, code uint, texts ...string) {
	b.t.Helper()
	var e *types.Error
	require.ErrorAs(b.t, err, &e)
	assert.Equal(b.t, code, e.Code, "%v", e)
	for _, text := range texts {
		assert.Contains(b.t, e.Error(), text)
	}
}

// empty checks that the host has no attachment.
func (b *bench) empty() {
	b.t.Helper()
	b.has()
}

// has checks that the host has these attachments and no others.
func (b *bench) has(want ...string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.ctx), limit)
	defer cancel()
	got, err := b.Attachments(ctx)
	require.NoError(b.t, err)
	slices.Sort(got)
	slices.Sort(want)
	assert.Equal(b.t, strings.Join(want, "\n"), strings.Join(got, "\n"))
}

// ip runs ip(8) in a pod.
func (b *bench) ip(p pod, args ...string) string {
	b.t.Helper()
	out, err := b.IP(b.ctx, p.name, args...)
	require.NoError(b.t, err, "ip %v", args)
	return out
}
