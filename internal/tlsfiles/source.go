package tlsfiles

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Source has what the files hold. It is safe for concurrent use.
type Source struct {
	files Files
	log   *slog.Logger

	mu   sync.Mutex        // guards the following
	now  *material         // the last that was good
	seen stamps            // of the files when they were last read
	sure bool              // that they were good, and that a later change has other stamps
	told map[string]string // problems that the log has, since the files were last good
}

// Open reads the files. Of changes that can't be used later on, log is told, and what
// was there before stays in use: a key is replaced a moment after its certificate.
func Open(files Files, log *slog.Logger) (*Source, error) {
	if err := files.Check(); err != nil {
		return nil, err
	}
	seen, err := files.stamp() // before they are read: a change in between is seen later
	if err != nil {
		return nil, fmt.Errorf("TLS files: %w", err)
	}
	m, err := files.read()
	if err != nil {
		return nil, fmt.Errorf("TLS files: %w", err)
	}
	return &Source{files: files, log: log, now: m, seen: seen, sure: seen.settled(time.Now()), told: map[string]string{}}, nil
}

// get returns what the files hold, or held when they were last good. It is an error
// when the certificate of then has expired.
func (s *Source) get() (*material, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seen, _ := s.files.stamp(); !s.sure || !seen.equal(s.seen) { // one that is missing has another stamp
		s.seen, s.sure = seen, seen.settled(time.Now())
		s.readLocked()
	}
	err := s.files.current(s.now.cert.Leaf, time.Now())
	if err != nil { // the other side is told no more than that it failed
		s.tellLocked("TLS connections are refused", err)
	}
	return s.now, err
}

func (s *Source) readLocked() {
	m, err := s.files.read()
	if err != nil {
		s.sure = false
		s.tellLocked("changed TLS files can't be used: the ones before stay in use", err)
		return
	}
	if !m.cert.Leaf.Equal(s.now.cert.Leaf) {
		s.log.Info("changed TLS files are in use", "certificate", s.files.Cert, "serial", m.cert.Leaf.SerialNumber, "until", m.cert.Leaf.NotAfter)
	}
	s.now = m
	clear(s.told)
}

// tellLocked tells the log of a problem once.
func (s *Source) tellLocked(what string, err error) {
	if s.told[what] != err.Error() {
		s.told[what] = err.Error()
		s.log.Warn(what, "error", err)
	}
}

// Server returns the configuration of a server.
func (s *Source) Server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			m, err := s.get()
			if err != nil {
				return nil, err
			}
			return &tls.Config{
				MinVersion: tls.VersionTLS13, NextProtos: protocols,
				Certificates: []tls.Certificate{m.cert}, ClientCAs: m.roots, ClientAuth: tls.RequireAndVerifyClientCert,
				SessionTicketsDisabled: true, // a session of before must not outlive its CA
			}, nil
		},
	}
}

// protocols are those that are spoken over TLS: gRPC's HTTP/2 (RFC 9113, section 3.2).
var protocols = []string{"h2"}
