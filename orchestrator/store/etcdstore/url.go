package etcdstore

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// defaultPort is that of etcd's clients.
const defaultPort = "2379"

// ParseURL returns the configuration that a URL names:
//
//	etcd://HOST[:PORT][,HOST[:PORT]...][/PREFIX][?OPTION=VALUE&...]
//
// etcds:// is the same by TLS. Options are ca, cert, key (TLS files), user,
// password-file, dial-timeout and request-timeout (such as 5s). The files are not
// read yet.
func ParseURL(s string) (Config, error) {
	c, err := parseURL(s)
	if err != nil {
		return Config{}, fmt.Errorf("store %q: %w", s, err)
	}
	return c, nil
}

func parseURL(s string) (c Config, err error) {
	scheme, rest, ok := strings.Cut(s, "://")
	switch {
	case ok && scheme == "etcd":
	case ok && scheme == "etcds":
		c.TLS = &TLSFiles{}
	default:
		return c, errors.New("want etcd://HOST:PORT,HOST:PORT/PREFIX, or etcds:// for TLS")
	}
	rest, query, _ := strings.Cut(rest, "?")
	hosts, path, _ := strings.Cut(rest, "/")
	for h := range strings.SplitSeq(hosts, ",") {
		e, err := endpoint(h)
		if err != nil {
			return c, err
		}
		c.Endpoints = append(c.Endpoints, e)
	}
	if path, err = url.PathUnescape(path); err != nil {
		return c, fmt.Errorf("prefix: %w", err)
	}
	if path = strings.Trim(path, "/"); path != "" {
		c.Prefix = "/" + path + "/"
	}
	return c, c.options(query)
}

// endpoint completes a host.
func endpoint(h string) (string, error) {
	if strings.Contains(h, "@") {
		return "", errors.New("a user in the host; use the options user and password-file")
	}
	host, port, err := net.SplitHostPort(h)
	if err != nil {
		// A bare name or address, IPv6 in brackets or not.
		host, port = strings.TrimSuffix(strings.TrimPrefix(h, "["), "]"), defaultPort
		if strings.ContainsAny(host, "[]") || strings.Contains(host, ":") && net.ParseIP(host) == nil {
			return "", fmt.Errorf("host %q: want HOST or HOST:PORT", h)
		}
	}
	if _, perr := strconv.ParseUint(port, 10, 16); host == "" || perr != nil {
		return "", fmt.Errorf("host %q: want HOST or HOST:PORT", h)
	}
	return net.JoinHostPort(host, port), nil
}

// options reads the part after the "?".
func (c *Config) options(query string) error {
	q, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("options: %w", err)
	}
	for k, v := range q {
		if len(v) != 1 || v[0] == "" {
			return fmt.Errorf("option %s: want one value", k)
		}
		if err := c.option(k, v[0]); err != nil {
			return fmt.Errorf("option %s: %w", k, err)
		}
	}
	if c.User != "" && c.PasswordFile == "" || c.User == "" && c.PasswordFile != "" {
		return errors.New("options user and password-file: both are needed, or neither")
	}
	return nil
}

func (c *Config) option(k, v string) (err error) {
	switch k {
	case "ca", "cert", "key":
		if c.TLS == nil {
			return errors.New("is for TLS; write etcds://")
		}
		*map[string]*string{"ca": &c.TLS.CA, "cert": &c.TLS.Cert, "key": &c.TLS.Key}[k] = v
	case "user":
		c.User = v
	case "password-file":
		c.PasswordFile = v
	case "password":
		return errors.New("a URL is seen by others; use password-file")
	case "dial-timeout":
		c.DialTimeout, err = timeout(v)
	case "request-timeout":
		c.RequestTimeout, err = timeout(v)
	default:
		return errors.New("unknown; there are ca, cert, key, user, password-file, dial-timeout and request-timeout")
	}
	return err
}

func timeout(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if err == nil && d <= 0 {
		err = errors.New("must be positive")
	}
	return d, err
}
