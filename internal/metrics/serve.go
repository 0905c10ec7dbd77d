package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/brfuse/brfuse/internal/unixsock"
)

// Limits of the server.
const (
	maxScrapes = 4                // at once; the next get 503
	headLimit  = 5 * time.Second  // for a request's head
	writeLimit = 10 * time.Second // for an answer, the scrape included
	idleLimit  = 2 * time.Minute  // between two requests of a connection
	maxHead    = 8 << 10          // bytes
)

// Listen listens at HOST:PORT or unix:PATH. Whoever reaches it may read the numbers.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		l, err := unixsock.Listen(ctx, path, 0o755)
		if err != nil {
			return nil, fmt.Errorf("serve metrics: %w", err)
		}
		return l, nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("serve metrics: %w", err)
	}
	return l, nil
}

// Handler serves /metrics, and /healthz, which says that the daemon answers and asks
// nobody.
func (m *Metrics) Handler(log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.reg, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, ErrorLog: printer{log}, MaxRequestsInFlight: maxScrapes, Registry: m.reg,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n"))
	})
	return mux
}

// printer has promhttp's errors logged.
type printer struct{ log *slog.Logger }

// Println implements [promhttp.Logger].
func (p printer) Println(v ...any) {
	p.log.Warn("scrape", "error", strings.TrimSpace(fmt.Sprintln(v...)))
}

// Serve serves what Handler does until ctx ends, and the requests that run then until
// they end, which they soon do.
func (m *Metrics) Serve(ctx context.Context, l net.Listener, log *slog.Logger) error {
	srv := &http.Server{
		Handler: m.Handler(log), ReadHeaderTimeout: headLimit, ReadTimeout: headLimit, WriteTimeout: writeLimit,
		IdleTimeout: idleLimit, MaxHeaderBytes: maxHead, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*scrapeLimit)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close()
		}
	})()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	<-stopped
	return nil
}
