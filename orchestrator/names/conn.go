package names

import (
	"net"
	"sync"
	"time"
)

// writeTimeout is how long a client may take to read an answer by TCP.
const writeTimeout = 5 * time.Second

// conn is a connection that is counted while it is open.
type conn struct {
	net.Conn
	once  sync.Once
	leave func()
}

// Write ends when the client doesn't read.
func (c *conn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// Close may be called more than once.
func (c *conn) Close() error {
	c.once.Do(c.leave)
	return c.Conn.Close()
}
