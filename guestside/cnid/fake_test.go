package cnid_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/guestside/cnid"
	"github.com/brfuse/brfuse/vnic"
)

// wait bounds all waits of the tests.
const wait = 20 * time.Second

// fakeHost remembers attachments. Calls can be made to fail, or to hang until
// their ctx ends or the test lets them go.
type fakeHost struct {
	mu       sync.Mutex
	all      map[cniapi.Attachment]vnic.Attachment
	calls    []string
	fail     map[string]error // by call, such as "attach"
	hang     map[string]chan struct{}
	answered vnic.Attachment // of check, when it has an ID
	network  string          // of the last ready
}

func newHost() *fakeHost {
	return &fakeHost{all: map[cniapi.Attachment]vnic.Attachment{}, fail: map[string]error{}, hang: map[string]chan struct{}{}}
}

func (h *fakeHost) enter(ctx context.Context, call string, k cniapi.Attachment) error {
	h.mu.Lock()
	h.calls = append(h.calls, call+" "+k.ContainerID+" "+k.Interface)
	err, hang := h.fail[call], h.hang[call]
	if err == nil {
		err = h.fail[call+" "+k.ContainerID]
	}
	h.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return err
}

func (h *fakeHost) Attach(ctx context.Context, req vnic.Request) (vnic.Attachment, error) {
	k := cniapi.Attachment{ContainerID: req.Pod, Interface: req.Interface}
	err := h.enter(ctx, "attach", k)
	h.mu.Lock()
	defer h.mu.Unlock()
	a := vnic.Attachment{ID: vnic.NewID(), Request: req, Phase: vnic.PhaseReady, MAC: vnic.NewMAC(), MTU: 1500}
	if err == nil || ctx.Err() != nil { // the host doesn't hear that ctx has ended
		h.all[k] = a
	}
	return a, err
}

func (h *fakeHost) Detach(ctx context.Context, pod, iface string) error {
	k := cniapi.Attachment{ContainerID: pod, Interface: iface}
	err := h.enter(ctx, "detach", k)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		delete(h.all, k)
	}
	return err
}

func (h *fakeHost) Attachments(ctx context.Context, manager string) ([]vnic.Attachment, error) {
	err := h.enter(ctx, "list", cniapi.Attachment{})
	h.mu.Lock()
	defer h.mu.Unlock()
	var as []vnic.Attachment
	for _, a := range h.all {
		if a.Request.Manager == manager {
			as = append(as, a)
		}
	}
	return as, err
}

func (h *fakeHost) Check(ctx context.Context, pod, iface string) (vnic.Attachment, error) {
	err := h.enter(ctx, "check", cniapi.Attachment{ContainerID: pod, Interface: iface})
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.answered, err
}

func (h *fakeHost) Ready(ctx context.Context, network string) error {
	err := h.enter(ctx, "ready", cniapi.Attachment{})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.network = network
	return err
}

func (h *fakeHost) set(call string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail[call] = err
}

// hold makes a call hang until the returned function is called.
func (h *fakeHost) hold(call string) (release func()) {
	ch := make(chan struct{})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hang[call] = ch
	return sync.OnceFunc(func() { close(ch) })
}

func (h *fakeHost) keys() []cniapi.Attachment {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ks []cniapi.Attachment
	for k := range h.all {
		ks = append(ks, k)
	}
	slices.SortFunc(ks, func(a, b cniapi.Attachment) int { return cmpKeys(a, b) })
	return ks
}

func cmpKeys(a, b cniapi.Attachment) int {
	switch {
	case a == b:
		return 0
	case a.ContainerID < b.ContainerID, a.ContainerID == b.ContainerID && a.Interface < b.Interface:
		return -1
	}
	return 1
}

func (h *fakeHost) called(call string) bool { return h.count(call) > 0 }

// count returns how many calls there were like one, such as "detach c1 eth0" or
// "detach".
func (h *fakeHost) count(call string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.calls {
		if c == call || strings.HasPrefix(c, call+" ") {
			n++
		}
	}
	return n
}

// fakeAgent answers what the test sets.
type fakeAgent struct {
	mu                  sync.Mutex
	nameFree, checkFail error
	netns               string
	checked             []vnic.Move
}

func (a *fakeAgent) NameFree(_ context.Context, netns, _ string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.netns = netns
	return a.nameFree
}

func (a *fakeAgent) Check(_ context.Context, m vnic.Move) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.checked = append(a.checked, m)
	return a.checkFail
}

// lab is a server with a fake host and agent.
type lab struct {
	t      *testing.T
	host   *fakeHost
	agent  *fakeAgent
	socket string
	stop   func() error // stops the server and returns what Serve did
}

func newLab(t *testing.T, change func(*cnid.Config)) *lab {
	t.Helper()
	l := &lab{t: t, host: newHost(), agent: &fakeAgent{}, socket: filepath.Join(t.TempDir(), "brfuse", "cni.sock")}
	cfg := cnid.Config{Socket: l.socket, Host: l.host, Agent: l.agent}
	if change != nil {
		change(&cfg)
	}
	l.socket = cfg.Socket
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- cnid.New(cfg).Serve(ctx) }()
	l.stop = sync.OnceValue(func() error {
		cancel(errTest)
		select {
		case err := <-done:
			return err
		case <-time.After(wait):
			return errors.New("the server does not stop")
		}
	})
	t.Cleanup(func() { assert.ErrorIs(t, l.stop(), errTest) })
	require.Eventually(t, func() bool {
		c, err := dial(t, l.socket)
		return err == nil && c.Close() == nil
	}, wait, time.Millisecond, "the server does not listen")
	return l
}

var errTest = errors.New("test is over")

// call asks the server as the plugin does.
func (l *lab) call(r cniapi.Request) cniapi.Response {
	l.t.Helper()
	conn := l.send(r)
	defer conn.Close()
	return l.receive(conn)
}

func (l *lab) send(r cniapi.Request) net.Conn {
	l.t.Helper()
	conn, err := dial(l.t, l.socket)
	require.NoError(l.t, err)
	require.NoError(l.t, conn.SetDeadline(time.Now().Add(wait)))
	r.Version = cniapi.Version
	if r.Conf == "" {
		r.Conf = "pods"
	}
	require.NoError(l.t, cniapi.Write(conn, r))
	return conn
}

func dial(t *testing.T, socket string) (net.Conn, error) {
	t.Helper()
	return (&net.Dialer{}).DialContext(t.Context(), "unix", socket)
}

func (l *lab) receive(conn net.Conn) cniapi.Response {
	l.t.Helper()
	resp, err := cniapi.ReadResponse(bufio.NewReader(conn))
	require.NoError(l.t, err)
	return resp
}

// request returns one about container c<n>.
func request(verb cniapi.Verb, n int) cniapi.Request {
	return cniapi.Request{Verb: verb, Attach: vnic.Request{
		Key: vnic.Key{Pod: "c" + strconv.Itoa(n), Interface: "eth0"}, Netns: ownNetns, Labels: map[string]string{cniapi.LabelNetwork: "pods"},
	}}
}

const ownNetns = "/proc/self/ns/net"
