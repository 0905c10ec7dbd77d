package netload

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A process of the tests becomes a load by these variables: one that is prepared
// can't be stopped by the runtime, as tests have it done.
const (
	serveEnv = "NETLOAD_TEST_SERVE" // for how many flows it is prepared
	runEnv   = "NETLOAD_TEST_RUN"   // the spec, with the server's address in runToEnv
	runToEnv = "NETLOAD_TEST_RUN_TO"
)

func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(serveEnv) != "":
		err = serveAlone(os.Getenv(serveEnv))
	case os.Getenv(runEnv) != "":
		err = runAlone(os.Getenv(runToEnv), os.Getenv(runEnv))
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serveAlone serves until standard input ends.
func serveAlone(flows string) error {
	var n int
	if _, err := fmt.Sscan(flows, &n); err != nil {
		return err
	}
	Prepare(n)
	if got := runtime.GOMAXPROCS(0); got < n+2 {
		return fmt.Errorf("GOMAXPROCS is %d", got)
	}
	s, err := Listen(context.Background(), netip.MustParseAddrPort("127.0.0.1:0"), Options{})
	if err != nil {
		return err
	}
	fmt.Println(s.Addr())
	bufio.NewScanner(os.Stdin).Scan()
	return s.Close()
}

func runAlone(to, text string) error {
	var spec Spec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	Prepare(spec.Flows)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	res, err := Run(ctx, netip.MustParseAddrPort(to), spec, RunOptions{})
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(res)
}

// TestPrepared has prepared processes of both ends, with as many flows as the server is
// prepared for, and with more.
func TestPrepared(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	server := exec.CommandContext(ctx, os.Args[0])
	server.Env = append(os.Environ(), serveEnv+"=2")
	server.Stderr = os.Stderr
	in, err := server.StdinPipe()
	require.NoError(t, err)
	out, err := server.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, server.Start())
	defer func() {
		assert.NoError(t, in.Close())
		assert.NoError(t, server.Wait(), "it ends when it is told to")
	}()
	addr, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	for _, spec := range []Spec{
		{Kind: TCPStream, Size: 16384, Flows: 2},
		{Kind: TCPStream, Size: 16384, Flows: 6, Reverse: true},
		{Kind: TCPRR, Size: 1024, Flows: 1},
		{Kind: TCPRR, Size: 1024, Flows: 6},
		{Kind: UDPStream, Size: 64, Flows: 1, Reverse: true, Rate: 1000},
		{Kind: UDPRR, Size: 64, Flows: 2},
		{Kind: TCPCRR, Size: 64, Flows: 1},
	} {
		t.Run(fmt.Sprintf("%s, %d flows", spec.Kind, spec.Flows), func(t *testing.T) {
			spec.Duration, spec.WarmUp = 100*time.Millisecond, 20*time.Millisecond
			text, err := json.Marshal(spec)
			require.NoError(t, err)
			client := exec.CommandContext(ctx, os.Args[0])
			client.Env = append(os.Environ(), runEnv+"="+string(text), runToEnv+"="+strings.TrimSpace(addr))
			client.Stderr = os.Stderr
			printed, err := client.Output()
			require.NoError(t, err)
			var res Result
			require.NoError(t, json.Unmarshal(printed, &res))
			assert.Positive(t, res.Received)
		})
	}
}
