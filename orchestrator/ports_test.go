package orchestrator_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/vnic"
)

// mapping publishes a TCP port on all addresses.
func mapping(host, port uint16) vnic.PortMapping {
	return vnic.PortMapping{HostPort: host, Port: port, Protocol: vnic.TCP}
}

func publishing(pod string, ports ...vnic.PortMapping) vnic.Request {
	req := request(pod, "eth0")
	req.Ports = ports
	return req
}

// ports prints what is published on the host, without the IDs.
func (r *rig) ports() string {
	var list []string
	for line := range strings.SplitSeq(r.world.String(), "\n") {
		if rest, ok := strings.CutPrefix(line, "port "); ok {
			list = append(list, strings.Fields(rest)[0])
		}
	}
	return strings.Join(list, " ")
}

func TestPublishedPortsComeAndGo(t *testing.T) {
	inRig(t, func(r *rig) {
		req := publishing("web", mapping(8080, 80), vnic.PortMapping{HostPort: 53, Port: 53, Protocol: vnic.UDP})
		req.Bandwidth = vnic.Bandwidth{Ingress: vnic.Rate{Bits: 1e6}, Egress: vnic.Rate{Bits: 2e6}}
		a, err := r.orch.Attach(r.t.Context(), req)
		require.NoError(r.t, err)
		assert.Equal(r.t, "53:53/udp 8080:80/tcp", r.ports())
		assert.Contains(r.t, r.world.String(), "limit 1000000/2000000 of "+string(a.ID))
		_, err = r.orch.Detach(r.t.Context(), a.ID)
		require.NoError(r.t, err)
		r.nothingLeft()
	})
}

func TestPortsOfTwoAttachments(t *testing.T) {
	ip1, ip2 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	at := func(ip netip.Addr) vnic.PortMapping { m := mapping(8080, 80); m.HostIP = ip; return m }
	udp := mapping(8080, 80)
	udp.Protocol = vnic.UDP
	cases := []struct {
		name   string
		have   vnic.PortMapping
		want   vnic.PortMapping
		differ bool
	}{
		{"the same", mapping(8080, 80), mapping(8080, 81), false},
		{"any and one", mapping(8080, 80), at(ip1), false},
		{"one and any", at(ip1), mapping(8080, 80), false},
		{"one and the same", at(ip1), at(ip1), false},
		{"two addresses", at(ip1), at(ip2), true},
		{"two protocols", mapping(8080, 80), udp, true},
		{"two ports", mapping(8080, 80), mapping(808, 80), true},
		{"a port that begins alike", mapping(808, 80), mapping(8080, 80), true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(r *rig) {
				assert.Equal(r.t, c.differ, !c.have.Overlaps(c.want))
				a, err := r.orch.Attach(r.t.Context(), publishing("web", c.have))
				require.NoError(r.t, err)
				before := r.leases()
				_, err = r.orch.Attach(r.t.Context(), publishing("db", c.want))
				if c.differ {
					require.NoError(r.t, err)
					return
				}
				require.ErrorIs(r.t, err, vnic.ErrPortTaken)
				require.ErrorContains(r.t, err, "is published for attachment "+string(a.ID))
				assert.Equal(r.t, before, r.leases())
				_, err = r.orch.Detach(r.t.Context(), a.ID)
				require.NoError(r.t, err)
				_, err = r.orch.Attach(r.t.Context(), publishing("db", c.want))
				require.NoError(r.t, err)
			})
		})
	}
}

func TestAttachWithPortThatAnotherProgramHas(t *testing.T) {
	inRig(t, func(r *rig) {
		r.world.Occupy(8080, true)
		_, err := r.orch.Attach(r.t.Context(), publishing("web", mapping(8080, 80)))
		require.ErrorIs(r.t, err, vnic.ErrPortTaken)
		r.nothingLeft()
	})
}

func TestPublish(t *testing.T) {
	inRig(t, func(r *rig) {
		ctx := r.t.Context()
		a := r.attach("web", "eth0")
		got, err := r.orch.Publish(ctx, a.ID, []vnic.PortMapping{mapping(8080, 80), mapping(8443, 443)})
		require.NoError(r.t, err)
		assert.Len(r.t, got.Request.Ports, 2)
		assert.Equal(r.t, "8080:80/tcp 8443:443/tcp", r.ports())
		_, err = r.orch.Publish(ctx, a.ID, []vnic.PortMapping{mapping(8443, 444)})
		require.NoError(r.t, err)
		assert.Equal(r.t, "8443:444/tcp", r.ports())
		assert.Equal(r.t, a.ID, r.attach("web", "eth0").ID, "the request that led to it is still the same")
		assert.Equal(r.t, "8443:444/tcp", r.ports())
		_, err = r.orch.Attach(ctx, publishing("db", mapping(8080, 80)))
		require.NoError(r.t, err, "8080 is free again")
		_, err = r.orch.Publish(ctx, a.ID, nil)
		require.NoError(r.t, err)
		assert.Equal(r.t, "8080:80/tcp", r.ports())
	})
}

func TestPublishRefuses(t *testing.T) {
	inRig(t, func(r *rig) {
		ctx := r.t.Context()
		a := r.attach("web", "eth0")
		_, err := r.orch.Attach(ctx, publishing("db", mapping(8080, 80)))
		require.NoError(r.t, err)
		cases := []struct {
			name  string
			id    vnic.ID
			ports []vnic.PortMapping
			want  error
		}{
			{"no such attachment", "0123456789", nil, vnic.ErrNotFound},
			{"port 0", a.ID, []vnic.PortMapping{mapping(0, 80)}, vnic.ErrInvalid},
			{"overlap", a.ID, []vnic.PortMapping{mapping(8000, 80), mapping(8000, 81)}, vnic.ErrInvalid},
			{"another's", a.ID, []vnic.PortMapping{mapping(8000, 80), mapping(8080, 80)}, vnic.ErrPortTaken},
		}
		before, leases := r.world.String(), r.leases()
		for _, c := range cases {
			_, err := r.orch.Publish(ctx, c.id, c.ports)
			require.ErrorIs(r.t, err, c.want, c.name)
		}
		assert.Equal(r.t, before, r.world.String())
		assert.Equal(r.t, leases, r.leases())
	})
}

// TestPublishFails puts back what was published before.
func TestPublishFails(t *testing.T) {
	inRig(t, func(r *rig) {
		ctx := r.t.Context()
		a, err := r.orch.Attach(ctx, publishing("web", mapping(8080, 80)))
		require.NoError(r.t, err)
		r.world.Occupy(9090, true)
		leases := r.leases()
		got, err := r.orch.Publish(ctx, a.ID, []vnic.PortMapping{mapping(9090, 80)})
		require.ErrorIs(r.t, err, vnic.ErrPortTaken)
		assert.Equal(r.t, a.Request.Ports, got.Request.Ports)
		assert.Equal(r.t, "8080:80/tcp", r.ports())
		assert.Equal(r.t, leases, r.leases())

		ctx, cancel := context.WithCancel(ctx)
		r.world.Before("plug", func(ctx context.Context) error { cancel(); return ctx.Err() })
		_, err = r.orch.Publish(ctx, a.ID, []vnic.PortMapping{mapping(7070, 80)})
		require.ErrorIs(r.t, err, context.Canceled)
		r.world.Before("plug", nil)
		assert.Equal(r.t, "8080:80/tcp", r.ports())
		assert.Equal(r.t, leases, r.leases())
	})
}

// TestPortsStayTakenWhileTheyChange: until the host half has the new ports, nobody
// else gets those that may have to come back.
func TestPortsStayTakenWhileTheyChange(t *testing.T) {
	inRig(t, func(r *rig) {
		ctx := r.t.Context()
		a, err := r.orch.Attach(ctx, publishing("web", mapping(8080, 80)))
		require.NoError(r.t, err)
		r.world.Occupy(9090, true)
		var thief error
		r.world.Before("plug", func(context.Context) error {
			r.world.Before("plug", nil)
			_, thief = r.orch.Attach(ctx, publishing("db", mapping(8080, 80)))
			return nil
		})
		_, err = r.orch.Publish(ctx, a.ID, []vnic.PortMapping{mapping(9090, 80)})
		require.ErrorIs(r.t, err, vnic.ErrPortTaken)
		require.ErrorIs(r.t, thief, vnic.ErrPortTaken)
		assert.Equal(r.t, "8080:80/tcp", r.ports())
		_, err = r.orch.Attach(ctx, publishing("db", mapping(9091, 80)))
		require.NoError(r.t, err)
		r.world.Occupy(9090, false)
		_, err = r.orch.Publish(ctx, a.ID, []vnic.PortMapping{mapping(9090, 80)})
		require.NoError(r.t, err)
		assert.Equal(r.t, 2, strings.Count(r.leases(), "port/"), "8080 is nobody's")
	})
}

// TestPortQuota: each port takes descriptors of the daemon's, so a guest has so many.
func TestPortQuota(t *testing.T) {
	inRig(t, func(r *rig) {
		ctx := r.t.Context()
		many := func(first, n int) (ports []vnic.PortMapping) {
			for i := range n {
				ports = append(ports, mapping(uint16(first+i), 80))
			}
			return ports
		}
		ask := func(iface, manager string, ports []vnic.PortMapping) (vnic.Attachment, error) {
			req := request("web", iface)
			req.Manager, req.Ports = manager, ports
			return r.orch.Attach(ctx, req)
		}
		var last vnic.Attachment
		for i := range orchestrator.MaxPortsPerVM / vnic.MaxPorts {
			var err error
			last, err = ask(fmt.Sprintf("eth%d", i), "cni", many(10_000+i*vnic.MaxPorts, vnic.MaxPorts))
			require.NoError(r.t, err)
		}
		_, err := ask("net1", "cni", many(2000, 1))
		require.ErrorIs(r.t, err, vnic.ErrForbidden)
		require.ErrorContains(r.t, err, "vm vm1 would have 1025 published ports, its guest may ask for 1024")
		more, err := ask("net1", "cni", nil)
		require.NoError(r.t, err)
		_, err = r.orch.Publish(ctx, more.ID, many(2000, 1))
		require.ErrorIs(r.t, err, vnic.ErrForbidden)
		_, err = r.orch.Publish(ctx, last.ID, last.Request.Ports)
		require.NoError(r.t, err, "no more than before")
		_, err = ask("net2", "", many(2000, 1))
		require.NoError(r.t, err, "the daemon's API is not limited")
		_, err = r.orch.Publish(ctx, last.ID, last.Request.Ports[:10])
		require.NoError(r.t, err)
		_, err = r.orch.Publish(ctx, more.ID, many(3000, 10))
		require.NoError(r.t, err)
	})
}

// TestPublishAndItsUndoFail: the host half may have the new ports. It gets the old
// ones as soon as it answers.
func TestPublishAndItsUndoFail(t *testing.T) {
	inRig(t, func(r *rig) {
		a, err := r.orch.Attach(r.t.Context(), publishing("web", mapping(8080, 80)))
		require.NoError(r.t, err)
		r.world.After("plug", func(context.Context) error { return errBoom })
		r.world.Before("plug", func(ctx context.Context) error {
			if strings.Contains(r.world.String(), "9090") {
				return errors.New("stuck")
			}
			return nil
		})
		_, err = r.orch.Publish(r.t.Context(), a.ID, []vnic.PortMapping{mapping(9090, 80)})
		require.ErrorIs(r.t, err, errBoom)
		require.ErrorContains(r.t, err, "undoing it goes on in the background, for it failed too: plug: stuck")
		assert.Equal(r.t, "9090:80/tcp", r.ports())
		r.world.Before("plug", nil)
		r.world.After("plug", nil)
		r.settleDown()
		assert.Equal(r.t, "8080:80/tcp", r.ports())
	})
}

// TestCrashPublish: after a restart, what is published is what is written down,
// even when that is nothing.
func TestCrashPublish(t *testing.T) {
	for _, before := range [][]vnic.PortMapping{{mapping(8080, 80)}, nil} {
		for _, after := range [][]vnic.PortMapping{{mapping(9090, 80)}, nil} {
			for _, p := range crashPoints([]string{"plug"}, 2) {
				t.Run(p.String(), func(t *testing.T) {
					inRig(t, func(r *rig) {
						a, err := r.orch.Attach(r.t.Context(), publishing("web", before...))
						require.NoError(r.t, err)
						r.conn.CrashAt(p.at, p.skip)
						_, err = r.orch.Publish(r.t.Context(), a.ID, after)
						require.Error(r.t, err)
						r.restart()
						synctest.Wait()
						got, err := r.orch.Get(r.t.Context(), a.ID)
						require.NoError(r.t, err)
						var want []string
						for _, m := range got.Request.Ports {
							want = append(want, m.String())
						}
						assert.Equal(r.t, strings.Join(want, " "), r.ports())
						assert.Equal(r.t, len(want), strings.Count(r.leases(), "port/"))
						_, err = r.orch.Publish(r.t.Context(), a.ID, after)
						require.NoError(r.t, err)
						_, err = r.orch.Detach(r.t.Context(), a.ID)
						require.NoError(r.t, err)
						r.nothingLeft()
					})
				})
			}
		}
	}
}

// TestPortsAndLimitsAfterARestart: they end with the daemon, and come back.
func TestPortsAndLimitsAfterARestart(t *testing.T) {
	inRig(t, func(r *rig) {
		req := publishing("web", mapping(8080, 80))
		req.Bandwidth.Egress.Bits = 1e6
		_, err := r.orch.Attach(r.t.Context(), req)
		require.NoError(r.t, err)
		before := r.world.String()
		r.conn.Crash()
		r.world.Forget()
		r.restart()
		synctest.Wait()
		assert.Equal(r.t, before, r.world.String())
	})
}

// TestNothingToPublishAfterARestart: a daemon with many vNICs doesn't plug them all
// again.
func TestNothingToPublishAfterARestart(t *testing.T) {
	inRig(t, func(r *rig) {
		r.attach("web", "eth0")
		r.restart()
		synctest.Wait()
		assert.Equal(r.t, 1, r.world.Calls("plug"))
	})
}

// TestPortTakenWhileTheDaemonWasAway: the pod keeps its vNIC, and gets the port
// once it is free.
func TestPortTakenWhileTheDaemonWasAway(t *testing.T) {
	inRig(t, func(r *rig) {
		_, err := r.orch.Attach(r.t.Context(), publishing("web", mapping(8080, 80)))
		require.NoError(r.t, err)
		r.conn.Crash()
		r.world.Forget()
		r.world.Occupy(8080, true)
		r.restart()
		synctest.Wait()
		assert.Equal(r.t, "vm1/web/eth0 ready", r.list())
		require.ErrorIs(r.t, r.orch.Reconcile(r.t.Context(), "vm1"), vnic.ErrPortTaken)
		r.world.Occupy(8080, false)
		r.settleDown()
		assert.Equal(r.t, "8080:80/tcp", r.ports())
	})
}

// TestPodDiedWhileItsPortWasTaken: the port that can't be had is no reason to keep
// the vNIC of a dead pod.
func TestPodDiedWhileItsPortWasTaken(t *testing.T) {
	inRig(t, func(r *rig) {
		_, err := r.orch.Attach(r.t.Context(), publishing("web", mapping(8080, 80)))
		require.NoError(r.t, err)
		r.conn.Crash()
		r.world.Forget()
		r.world.Occupy(8080, true)
		r.world.KillPod("vm1", "web")
		r.restart()
		synctest.Wait()
		r.world.Occupy(8080, false)
		r.nothingLeft()
	})
}
