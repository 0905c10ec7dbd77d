package macro

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// parsers read what the programs print.
var parsers = map[string]func(string) (map[string]float64, error){
	"iperf3":    func(s string) (map[string]float64, error) { return parseIperf3([]byte(s)) },
	"sockperf":  parseSockperf,
	"redis get": func(s string) (map[string]float64, error) { return parseRedis(s, "get") },
	"redis set": func(s string) (map[string]float64, error) { return parseRedis(s, "set") },
	"wrk":       parseWrk,
}

// The files are what the programs of Debian 12 printed on a loopback.
func TestParse(t *testing.T) {
	for _, tt := range []struct {
		file, parser string
		want         map[string]float64
		wantErr      string
	}{
		{file: "iperf3_tcp.json", parser: "iperf3", want: map[string]float64{"B/s": 1943697483, "retrans": 123}},
		{file: "iperf3_tcp_fwd.json", parser: "iperf3", want: map[string]float64{"B/s": 1406629613, "retrans": 7}},
		{file: "iperf3_udp.json", parser: "iperf3", want: map[string]float64{"B/s": 39491752, "msg/s": 617058, "loss": 0.0373838}},
		{file: "iperf3_udp_fwd.json", parser: "iperf3", want: map[string]float64{"B/s": 38568043, "msg/s": 602626, "loss": 0.0565567}},
		{file: "iperf3_err.json", parser: "iperf3", wantErr: "iperf3: unable to connect to server: Connection refused"},
		{file: "sockperf_tcp.txt", parser: "sockperf", want: map[string]float64{
			"msg/s": 134882 / 0.83, "loss": 0, "p50-ns": 5129, "p90-ns": 8794, "p99-ns": 13684, "p99.9-ns": 48919,
		}},
		{file: "sockperf_udp.txt", parser: "sockperf", want: map[string]float64{
			"msg/s": 20262 / 1.55, "loss": 0, "p50-ns": 82288, "p90-ns": 92547, "p99-ns": 191380, "p99.9-ns": 480857,
		}},
		{file: "sockperf_udp_none.txt", parser: "sockperf", wantErr: "No messages were received from the server"},
		{file: "sockperf_half.txt", parser: "sockperf", wantErr: "no round trips"}, // they are halves of them
		{file: "redis.csv", parser: "redis get", want: map[string]float64{"msg/s": 111111.11, "p50-ns": 55000, "p99-ns": 207000}},
		{file: "redis.csv", parser: "redis set", want: map[string]float64{"msg/s": 111111.11, "p50-ns": 55000, "p99-ns": 215000}},
		{file: "wrk.txt", parser: "wrk", want: map[string]float64{
			"msg/s": 104822.91, "B/s": 104822.91 * 1024, "p50-ns": 67000, "p90-ns": 106000, "p99-ns": 282000,
		}},
		{file: "wrk_404.txt", parser: "wrk", wantErr: "wrk: Non-2xx or 3xx responses: 77484"},
	} {
		t.Run(tt.file+" "+tt.parser, func(t *testing.T) {
			got, err := parsers[tt.parser](read(t, tt.file))
			if tt.wantErr != "" {
				assert.ErrorContains(t, err, tt.wantErr)
				return
			}
			require.NoError(t, err)
			assert.Len(t, got, len(tt.want))
			for name, want := range tt.want {
				assert.InDelta(t, want, got[name], want*1e-4, name)
			}
		})
	}
}

// What is cut off is an error, and never a figure of its own.
func TestParseCut(t *testing.T) {
	for file, parser := range map[string]string{
		"iperf3_tcp.json": "iperf3", "iperf3_udp.json": "iperf3", "sockperf_tcp.txt": "sockperf", "redis.csv": "redis get", "wrk.txt": "wrk",
	} {
		t.Run(file, func(t *testing.T) {
			all := read(t, file)
			whole, err := parsers[parser](all)
			require.NoError(t, err)
			for n := range len(all) {
				if m, err := parsers[parser](all[:n]); err == nil {
					assert.Equal(t, whole, m, "of the first %d bytes", n)
				}
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ name, parser, in, wantErr string }{
		{"nothing", "redis get", "", "printed nothing"},
		{"other command", "redis get", "\"test\",\"rps\"\n\"SET\",\"1\"\n", "nothing about get"},
		{"column missing", "redis get", "\"test\",\"rps\"\n\"GET\",\"1\"\n", "a column is missing"},
		{"not a number", "redis get", "\"test\",\"rps\"\n\"GET\",\"NaN\"\n", "is no figure"},
		{"nothing received", "iperf3", `{"end":{"sum_received":{"seconds":2}}}`, "nothing was received"},
		{"negative loss", "iperf3", `{"start":{"test_start":{"protocol":"UDP","blksize":64}},"end":{"sum_received":{"seconds":2,"bytes":1,"lost_packets":-1}}}`, "-1 of them lost"},
		{"timeouts", "wrk", "  Socket errors: connect 0, read 0, write 0, timeout 3\nRequests/sec: 1\n", "timeout 3"},
		{"nothing answered", "wrk", "Requests/sec:      0.00\n", "nothing was answered"},
		{"no rate", "wrk", "Requests/sec:      fast\n", "rate: "},
		{"no percentiles", "wrk", "Requests/sec:     12.5\n", "is missing"},
		{
			"more back than sent", "sockperf",
			"[Valid Duration] RunTime=1 sec; Warm up time=1 msec; SentMessages=1; ReceivedMessages=2\nSummary: Round trip is 1 usec", "2 messages of 1",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := parsers[tt.parser](tt.in)
			require.ErrorContains(t, err, tt.wantErr)
			assert.Nil(t, m)
		})
	}
}

func TestHasSocket(t *testing.T) {
	const tcp = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:5277 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 34185 1 00000000204f6c00 100 0 0 10 0
   1: 0100007F:1F90 0100007F:D2A4 01 00000000:00000000 00:00000000 00000000     0        0 34186 1 00000000204f6c00 100 0 0 10 0
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:1451 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 34185 1
`
	assert.True(t, hasSocket(tcp, 0x5277, stateListen))
	assert.True(t, hasSocket(tcp, iperf3Port, stateListen), "of IPv6")
	assert.False(t, hasSocket(tcp, httpPort, stateListen), "it is a connection")
	assert.False(t, hasSocket(tcp, 0x5277, stateClose))
	assert.False(t, hasSocket("", 0, ""))
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.*")
	require.NoError(f, err)
	require.NotEmpty(f, files)
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, in string) {
		for name, parse := range parsers {
			m, err := parse(in)
			if err != nil {
				assert.Nil(t, m, name)
				continue
			}
			assert.NotEmpty(t, m, name)
			require.NoError(t, finite(m), name)
		}
		hasSocket(in, httpPort, stateListen)
	})
}

func read(tb testing.TB, file string) string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	require.NoError(tb, err)
	return string(b)
}
