// Package logging makes the loggers of brfuse's programs.
package logging

import (
	"fmt"
	"io"
	"log/slog"
)

// New returns a logger that writes to w in a format, "text" or "json".
func New(w io.Writer, format string, level slog.Level) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("log format %q is neither text nor json", format)
}
