package etcdstore_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/store/etcdstore"
)

func TestParseURL(t *testing.T) {
	cases := []struct {
		url  string
		want etcdstore.Config
		err  string
	}{
		{url: "etcd://a", want: etcdstore.Config{Endpoints: []string{"a:2379"}}},
		{
			url:  "etcd://a:1,10.0.0.1,[fd00::1]:3,[fd00::2],fd00::3/",
			want: etcdstore.Config{Endpoints: []string{"a:1", "10.0.0.1:2379", "[fd00::1]:3", "[fd00::2]:2379", "[fd00::3]:2379"}},
		},
		{
			url: "etcd://a/x/y%20z/?user=u&password-file=/p%3Fq&dial-timeout=3s&request-timeout=500ms",
			want: etcdstore.Config{
				Endpoints: []string{"a:2379"}, Prefix: "/x/y z/", User: "u", PasswordFile: "/p?q",
				DialTimeout: 3 * time.Second, RequestTimeout: 500 * time.Millisecond,
			},
		},
		{url: "etcds://a", want: etcdstore.Config{Endpoints: []string{"a:2379"}, TLS: &etcdstore.TLSFiles{}}},
		{
			url: "etcds://a?ca=/ca&cert=/c&key=/k",
			want: etcdstore.Config{
				Endpoints: []string{"a:2379"}, TLS: &etcdstore.TLSFiles{CA: "/ca", Cert: "/c", Key: "/k"},
			},
		},
		{url: "bolt:///var", err: "want etcd://HOST:PORT,HOST:PORT/PREFIX, or etcds:// for TLS"},
		{url: "a:2379", err: "want etcd://HOST:PORT,HOST:PORT/PREFIX, or etcds:// for TLS"},
		{url: "etcd://", err: `host "": want HOST or HOST:PORT`},
		{url: "etcd://a,,b", err: `host "": want HOST or HOST:PORT`},
		{url: "etcd://a:x", err: `host "a:x": want HOST or HOST:PORT`},
		{url: "etcd://a:70000", err: `host "a:70000": want HOST or HOST:PORT`},
		{url: "etcd://:2379", err: `host ":2379": want HOST or HOST:PORT`},
		{url: "etcd://u:p@a", err: "a user in the host; use the options user and password-file"},
		{url: "etcd://a/%zz", err: `prefix: invalid URL escape "%zz"`},
		{url: "etcd://a?ca=x", err: "option ca: is for TLS; write etcds://"},
		{url: "etcd://a?user=x", err: "options user and password-file: both are needed, or neither"},
		{url: "etcd://a?user=x&user=y", err: "option user: want one value"},
		{url: "etcd://a?password=x", err: "option password: a URL is seen by others; use password-file"},
		{url: "etcd://a?dial-timeout=x", err: `option dial-timeout: time: invalid duration "x"`},
		{url: "etcd://a?request-timeout=-1s", err: "option request-timeout: must be positive"},
		{url: "etcd://a?x=y", err: "option x: unknown; there are ca, cert, key, user, password-file, dial-timeout and request-timeout"},
	}
	for _, c := range cases {
		t.Run(c.url, func(t *testing.T) {
			got, err := etcdstore.ParseURL(c.url)
			if c.err != "" {
				require.EqualError(t, err, `store "`+c.url+`": `+c.err)
			} else {
				require.NoError(t, err)
			}
			assert.Equal(t, c.want, got)
		})
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("etcds://a:1,[::1]/p?ca=x&cert=y&key=z")
	f.Add("etcd://a?user=u&password-file=p&dial-timeout=1s")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := etcdstore.ParseURL(s)
		if err != nil {
			return
		}
		assert.NotEmpty(t, c.Endpoints)
		assert.Equal(t, strings.HasPrefix(s, "etcds://"), c.TLS != nil)
		assert.True(t, c.Prefix == "" || strings.HasPrefix(c.Prefix, "/") && strings.HasSuffix(c.Prefix, "/"))
		for _, e := range c.Endpoints {
			again, err := etcdstore.ParseURL("etcd://" + e)
			require.NoError(t, err)
			assert.Equal(t, []string{e}, again.Endpoints)
		}
	})
}
