package guestside

import (
	"log/slog"
	"os"
	"strings"
	"sync"
)

// rcuExpedited has the kernel wait for its readers by interrupting the CPUs they are
// on, instead of until each has come by. Whoever moves or renames a link waits so
// several times.
const rcuExpedited = "/sys/kernel/rcu_expedited"

// expediter turns that on while something is being moved. It is safe for
// concurrent use.
type expediter struct {
	log  *slog.Logger
	file *os.File // nil: it is left as it is

	mu    sync.Mutex
	users int  // guarded by mu
	ours  bool // it was off before; guarded by mu
}

// newExpediter returns one that does nothing where the kernel can't be told.
func newExpediter(log *slog.Logger, wanted bool) *expediter {
	e := &expediter{log: log}
	if !wanted {
		return e
	}
	file, err := os.OpenFile(rcuExpedited, os.O_RDWR, 0)
	if err != nil {
		log.Debug("grace periods are not expedited", slog.Any("error", err))
		return e
	}
	e.file = file
	return e
}

// begin turns it on until the returned function is called.
func (e *expediter) begin() (end func()) {
	if e.file == nil {
		return func() {}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.users++; e.users == 1 {
		if e.ours = e.isOff(); e.ours {
			e.write("1")
		}
	}
	return e.end
}

func (e *expediter) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.users--; e.users == 0 && e.ours {
		e.write("0")
	}
}

// isOff tells whether nobody else has turned it on.
func (e *expediter) isOff() bool {
	var buf [16]byte
	n, _ := e.file.ReadAt(buf[:], 0) // at the end there is an EOF
	return strings.TrimSpace(string(buf[:n])) == "0"
}

func (e *expediter) write(s string) {
	if _, err := e.file.WriteAt([]byte(s), 0); err != nil {
		e.log.Warn("expedite grace periods", slog.String("value", s), slog.Any("error", err))
	}
}

func (e *expediter) close() error {
	if e.file == nil {
		return nil
	}
	return e.file.Close()
}
