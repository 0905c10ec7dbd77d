package etcdtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// status is what a member says of itself. 64-bit numbers are strings in the
// gateway's JSON.
type status struct {
	Header struct {
		MemberID string `json:"member_id"`
		Revision string `json:"revision"`
	} `json:"header"`
	Leader string `json:"leader"`
}

// Leader waits until a majority of the members agrees on a leader, and returns it.
func (c *Cluster) Leader(ctx context.Context) (*Member, error) {
	ticks := time.NewTicker(50 * time.Millisecond)
	defer ticks.Stop()
	for {
		votes, ids := map[string]int{}, map[string]*Member{}
		for _, m := range c.Members {
			if st, err := m.status(ctx); err == nil {
				ids[st.Header.MemberID] = m
				votes[st.Leader]++
			}
		}
		for id, n := range votes {
			if m := ids[id]; m != nil && 2*n > len(c.Members) {
				return m, nil
			}
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("no majority of etcd's members agrees on a leader: %w", context.Cause(ctx))
		}
	}
}

// Compact has etcd forget all revisions before the present one, and returns that.
func (c *Cluster) Compact(ctx context.Context) (string, error) {
	m, err := c.Leader(ctx)
	if err != nil {
		return "", err
	}
	st, err := m.status(ctx)
	if err != nil {
		return "", err
	}
	token, err := c.token(ctx)
	if err != nil {
		return "", err
	}
	req := map[string]any{"revision": st.Header.Revision, "physical": true}
	return st.Header.Revision, m.post(ctx, "kv/compaction", token, req, nil)
}

// enableAuth makes the user root and turns authentication on.
func (c *Cluster) enableAuth(ctx context.Context) error {
	m := c.Members[0]
	return errors.Join(
		m.post(ctx, "auth/user/add", "", map[string]string{"name": Root, "password": c.opts.Password}, nil),
		m.post(ctx, "auth/role/add", "", map[string]string{"name": Root}, nil),
		m.post(ctx, "auth/user/grant", "", map[string]string{"user": Root, "role": Root}, nil),
		m.post(ctx, "auth/enable", "", struct{}{}, nil),
	)
}

func (c *Cluster) token(ctx context.Context) (string, error) {
	if c.opts.Password == "" {
		return "", nil
	}
	var resp struct {
		Token string `json:"token"`
	}
	err := c.Members[0].post(ctx, "auth/authenticate", "", map[string]string{"name": Root, "password": c.opts.Password}, &resp)
	return resp.Token, err
}

func (m *Member) status(ctx context.Context) (st status, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return st, m.post(ctx, "maintenance/status", "", struct{}{}, &st)
}

// post makes a request to the member's HTTP gateway.
func (m *Member) post(ctx context.Context, path, token string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.url()+"/v3/"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	tr, err := m.transport()
	if err != nil {
		return err
	}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd %s, %s: %s: %s", m.name, path, resp.Status, b)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// transport connects from the member's namespace.
func (m *Member) transport() (*http.Transport, error) {
	tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		dial := func() (err error) {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return err
		}
		if m.ns == nil {
			err = dial()
		} else {
			err = m.ns.Do(dial)
		}
		return conn, err
	}}
	if m.c.Certs == nil {
		return tr, nil
	}
	cert, err := tls.LoadX509KeyPair(m.c.Certs.Cert, m.c.Certs.Key)
	if err != nil {
		return nil, err
	}
	tr.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: m.c.Certs.pool, Certificates: []tls.Certificate{cert}}
	return tr, nil
}
