//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Enabled tells whether failpoints are compiled in.
const Enabled = true

// pauseLimit bounds a pause, in case the test is gone.
const pauseLimit = 2 * time.Minute

// Hit does what the environment says for name.
func Hit(name string) error {
	for spec := range strings.SplitSeq(os.Getenv(Env), ",") {
		n, action, _ := strings.Cut(spec, "=")
		if n != name {
			continue
		}
		action, arg, _ := strings.Cut(action, ":")
		switch action {
		case "kill":
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				return fmt.Errorf("failpoint %s: kill: %w", name, err)
			}
			select {}
		case "error":
			return fmt.Errorf("failpoint %s", name)
		case "pause":
			return pause(name, filepath.Join(arg, name))
		default:
			return fmt.Errorf("failpoint %s: unknown action %q", name, action)
		}
	}
	return nil
}

func pause(name, file string) error {
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return fmt.Errorf("failpoint %s: %w", name, err)
	}
	for end := time.Now().Add(pauseLimit); time.Now().Before(end); {
		if _, err := os.Stat(file); err != nil {
			return nil
		}
		time.Sleep(5 * time.Millisecond) //nolint:forbidigo // a test hook across processes has only the file to look at
	}
	return fmt.Errorf("failpoint %s: still paused after %s", name, pauseLimit)
}
