package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc" //nolint:depguard // etcd's client takes credentials by a dial option
)

// login gives a client the token of a user, and gets a new one when etcd has
// forgotten it, at a restart for instance.
//
// clientv3 can do that too, but sends the forgotten token along when it asks for a
// new one. etcd 3.4 refuses that, and clientv3 then asks for a new one to ask for a
// new one, without end (etcd pull request 12549 has the story).
type login struct {
	cli        *clientv3.Client // has no token
	user, file string

	renewing sync.Mutex // held while a token is asked for

	mu    sync.RWMutex
	token string // guarded by mu
}

// newLogin checks the password file.
func newLogin(cfg Config) (*login, error) {
	l := &login{user: cfg.User, file: cfg.PasswordFile}
	if _, err := l.password(); err != nil {
		return nil, err
	}
	var err error
	l.cli, err = dial(cfg, nil)
	return l, err
}

func (l *login) password() (string, error) {
	b, err := os.ReadFile(l.file)
	if err != nil {
		return "", fmt.Errorf("read the password of etcd user %s: %w", l.user, err)
	}
	if p := strings.TrimSpace(string(b)); p != "" {
		return p, nil
	}
	return "", fmt.Errorf("read the password of etcd user %s: %s is empty", l.user, l.file)
}

func (l *login) option() grpc.DialOption { return grpc.WithPerRPCCredentials(l) }

// GetRequestMetadata implements credentials.PerRPCCredentials of gRPC.
func (l *login) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if t := l.current(); t != "" {
		return map[string]string{rpctypes.TokenFieldNameGRPC: t}, nil
	}
	return nil, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: who names a
// user without TLS wants it so.
func (l *login) RequireTransportSecurity() bool { return false }

func (l *login) current() string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.token
}

// token is what the store's requests have now.
func (s *Store) token() string {
	if s.login == nil {
		return ""
	}
	return s.login.current()
}

// renewable reports whether a request may do better with a new token. It was refused.
func renewable(err error) bool {
	return errors.Is(err, rpctypes.ErrInvalidAuthToken) || errors.Is(err, rpctypes.ErrAuthOldRevision) ||
		errors.Is(err, rpctypes.ErrUserEmpty)
}

// renew gets a token in the place of a stale one, unless another has.
func (l *login) renew(ctx context.Context, stale string) error {
	l.renewing.Lock()
	defer l.renewing.Unlock()
	if l.current() != stale {
		return nil
	}
	password, err := l.password()
	if err != nil {
		return err
	}
	resp, err := l.cli.Authenticate(ctx, l.user, password)
	if errors.Is(err, rpctypes.ErrAuthNotEnabled) {
		return nil
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.token = resp.Token
	return nil
}

func (l *login) close() error {
	if l == nil {
		return nil
	}
	return closeClient(l.cli)
}
