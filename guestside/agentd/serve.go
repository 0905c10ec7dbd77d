package agentd

import (
	"context"

	"github.com/brfuse/brfuse/guestside"
)

// Serve makes an agent and serves it on a channel until ctx ends: what the
// program brfuse-agent does. See [Config] for channel. It sets cfg.OnReturned.
func Serve(ctx context.Context, channel string, cfg guestside.Config, version string) (err error) {
	reports := new(Reports)
	cfg.OnReturned = reports.Returned
	agent, err := guestside.New(cfg)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := agent.Close(); err == nil {
			err = cerr
		}
	}()
	return Run(ctx, Config{Agent: agent, Channel: channel, Reports: reports, Version: version, Log: cfg.Log})
}
